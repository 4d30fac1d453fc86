package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
)

// quiet is a Logger for tests.
var quiet = slog.New(slog.DiscardHandler)

// A queue is a broker with one queue, for tests. Its Fetch waits until a message is ready.
// The functions of it may be set before it is used.
type queue struct {
	// beforeFetch is called by Fetch, which returns its error.
	beforeFetch func(ctx context.Context, n int) error
	// beforeSettle is called by the methods of the Settler, which return its error.
	beforeSettle func(ctx context.Context, what string, id string) error
	// over makes Fetch return this number of messages more than it was asked for.
	over int
	// uncounted leaves the attempts of messages at 0.
	uncounted bool

	mu      sync.Mutex // guards the fields below
	ready   []*letter
	unacked map[*letter]bool
	fetches []int
	log     []string // settlements, as "ack 1"
	dead    map[string]string
	extends map[string]int
	most    int // the most that were unacked at a time
	closed  int
	more    chan struct{}
}

type letter struct {
	broker.Message
	q        *queue
	attempts int
}

func newQueue(n int) *queue {
	q := &queue{unacked: map[*letter]bool{}, dead: map[string]string{}, extends: map[string]int{}, more: make(chan struct{})}
	for i := range n {
		q.publish(broker.Message{ID: strconv.Itoa(i + 1)})
	}
	return q
}

func (q *queue) publish(m broker.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = append(q.ready, &letter{Message: m, q: q})
	q.wakeLocked()
}

func (q *queue) wakeLocked() {
	close(q.more)
	q.more = make(chan struct{})
}

func (q *queue) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	q.mu.Lock()
	q.fetches = append(q.fetches, n)
	q.mu.Unlock()
	if q.beforeFetch != nil {
		if err := q.beforeFetch(ctx, n); err != nil {
			return nil, err
		}
	}
	for {
		q.mu.Lock()
		if len(q.ready) > 0 {
			defer q.mu.Unlock()
			return q.takeLocked(n + q.over), nil
		}
		more := q.more
		q.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (q *queue) takeLocked(n int) (messages []*broker.Message) {
	for _, l := range q.ready[:min(n, len(q.ready))] {
		l.attempts++
		m := l.Message
		if !q.uncounted {
			m.Attempt = l.attempts
		}
		q.unacked[l] = true
		messages = append(messages, broker.NewMessage(m, l))
	}
	q.ready = q.ready[len(messages):]
	q.most = max(q.most, len(q.unacked))
	return messages
}

func (q *queue) Close(context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed++
	return nil
}

func (l *letter) settle(ctx context.Context, what string, then func()) error {
	if l.q.beforeSettle != nil {
		if err := l.q.beforeSettle(ctx, what, l.ID); err != nil {
			return err
		}
	}
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	if what == "extend" {
		l.q.extends[l.ID]++
		return nil
	}
	l.q.log = append(l.q.log, what+" "+l.ID)
	if !l.q.unacked[l] {
		return fmt.Errorf("letter %s: %w", l.ID, broker.ErrSettled)
	}
	delete(l.q.unacked, l)
	then()
	return nil
}

func (l *letter) Ack(ctx context.Context) error    { return l.settle(ctx, "ack", func() {}) }
func (l *letter) Extend(ctx context.Context) error { return l.settle(ctx, "extend", func() {}) }

func (l *letter) Requeue(ctx context.Context) error {
	return l.settle(ctx, "requeue", func() {
		l.q.ready = append(l.q.ready, l)
		l.q.wakeLocked()
	})
}

func (l *letter) DeadLetter(ctx context.Context, reason string) error {
	return l.settle(ctx, "dead", func() { l.q.dead[l.ID] = reason })
}

// state is what the broker knows.
func (q *queue) state() (ready, unacked int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready), len(q.unacked)
}

func (q *queue) settlements() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.log)
}

func (q *queue) fetched() []int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.fetches)
}

// source returns a source of q, which the test must close.
func (q *queue) source(t *testing.T, c broker.SourceConfig) broker.Source {
	t.Helper()
	if c.Logger == nil {
		c.Logger = quiet
	}
	s, err := broker.NewSource(q, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func next(t *testing.T, s broker.Source) *broker.Message {
	t.Helper()
	m, err := s.Next(t.Context())
	if err != nil {
		t.Fatalf("Next: got error %v, want a message", err)
	}
	return m
}

// closeIn closes a source, and wants the error that errors.Is finds.
func closeIn(t *testing.T, s broker.Source, d time.Duration, want error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, want) {
		t.Errorf("Close: got %v, want %v", err, want)
	}
}

func wantState(t *testing.T, q *queue, ready, unacked int) {
	t.Helper()
	if r, u := q.state(); r != ready || u != unacked {
		t.Errorf("broker: got %d ready and %d unacked, want %d and %d", r, u, ready, unacked)
	}
}

var errBroken = errors.New("broken")
