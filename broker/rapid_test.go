package broker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
)

// Whatever happens, each message ends acknowledged, set aside or ready at the broker. The
// broker never counts more messages than were asked for, and nothing goes on running.
func TestConsumeNeverLoses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := script{
			limit:    rapid.IntRange(1, 5).Draw(rt, "limit"),
			messages: rapid.IntRange(0, 40).Draw(rt, "messages"),
			keys:     rapid.IntRange(0, 3).Draw(rt, "keys"),
			counted:  rapid.Bool().Draw(rt, "counted"),
			results:  rapid.SliceOfN(rapid.IntRange(0, 9), 1, 30).Draw(rt, "results"),
			fetches:  rapid.SliceOfN(rapid.IntRange(0, 5), 1, 10).Draw(rt, "fetches"),
			settles:  rapid.SliceOfN(rapid.IntRange(0, 6), 1, 10).Draw(rt, "settles"),
			over:     rapid.IntRange(0, 2).Draw(rt, "over"),
			end:      time.Duration(rapid.IntRange(0, 20_000).Draw(rt, "end")) * time.Millisecond,
			grace:    time.Duration(rapid.IntRange(1, 3000).Draw(rt, "grace")) * time.Millisecond,
			resize:   rapid.SliceOfN(rapid.IntRange(1, 8), 0, 4).Draw(rt, "resize"),
		}
		synctest.Test(t, func(t *testing.T) { seed.play(t, rt) })
	})
}

// A script says what happens, in turn.
type script struct {
	limit, messages, keys, over int
	counted                     bool
	results, fetches, settles   []int
	resize                      []int
	end, grace                  time.Duration
}

// A die draws the entries of a script in turn. It is safe for concurrent use.
type die struct {
	mu    sync.Mutex
	of    []int
	drawn int
}

func (d *die) next() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drawn++
	return d.of[(d.drawn-1)%len(d.of)]
}

// demands is a Source that counts.
type demands struct {
	broker.Source
	mu    sync.Mutex
	asked int
}

func (d *demands) Request(n int) {
	d.mu.Lock()
	d.asked += n
	d.mu.Unlock()
	d.Source.Request(n)
}

// check wants that a Fetch of n stays within the demand.
func (d *demands) check(rt *rapid.T, q *queue, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if open := d.asked - len(q.log); len(q.unacked)+n > open {
		rt.Errorf("Fetch(%d) beside %d unacked: got more than the %d that are asked for and not settled", n, len(q.unacked), open)
	}
}

func (s script) play(t *testing.T, rt *rapid.T) {
	q := newQueue(0)
	q.over = s.over
	q.uncounted = !s.counted
	for i := range s.messages {
		m := broker.Message{ID: fmt.Sprint(i)}
		if s.keys > 0 {
			m.Key = fmt.Sprint(i % s.keys)
		}
		q.publish(m)
	}
	results, fetches, settles := &die{of: s.results}, &die{of: s.fetches}, &die{of: s.settles}
	var source *demands
	q.beforeFetch = func(_ context.Context, n int) error {
		if s.over == 0 {
			source.check(rt, q, n)
		}
		if fetches.next() == 5 {
			return errBroken
		}
		return nil
	}
	q.beforeSettle = func(ctx context.Context, _, _ string) error {
		switch settles.next() {
		case 5:
			return errBroken
		case 6:
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	}
	source = &demands{Source: q.source(t, broker.SourceConfig{ExtendEvery: time.Second})}
	gate := fixed(t, s.limit)
	ctx, stop := context.WithTimeout(context.Background(), s.end)
	defer stop()
	go func() {
		for _, n := range s.resize {
			time.Sleep(500 * time.Millisecond)
			_ = gate.Update(admit.WithFixedLimit(n))
		}
	}()
	err := broker.Consume(ctx, source, handlerOf(results), broker.ConsumeConfig{
		Gate: gate, Ordered: s.keys > 0, Grace: s.grace, Logger: quiet, MaxPause: 2 * time.Second,
	})
	time.Sleep(time.Minute) // for handlers that go on
	synctest.Wait()
	ready, unacked := q.state()
	ended := map[string]int{}
	for _, entry := range q.settlements() {
		if what, id, _ := strings.Cut(entry, " "); what != "requeue" {
			ended[id]++
		}
	}
	if unacked != 0 && err == nil || ready+unacked+len(ended) != s.messages {
		rt.Errorf("got %d ready, %d unacked and %d ended of %d messages, Consume: %v, want all ready or ended", ready, unacked, len(ended), s.messages, err)
	}
	for id, n := range ended {
		if n != 1 {
			rt.Errorf("message %s: got %d ends, want one", id, n)
		}
	}
	if gate.InFlight() != 0 {
		rt.Errorf("permits: got %d, want none", gate.InFlight())
	}
	if most := 2*max(s.limit, 8) + s.over; q.most > most {
		rt.Errorf("unacked: got up to %d, want at most %d", q.most, most)
	}
}

// handlerOf returns a handler that does what a die says.
func handlerOf(results *die) broker.Handler {
	return func(ctx context.Context, m *broker.Message) error {
		switch results.next() {
		case 0:
			return errBroken
		case 1:
			return status.Error(codes.Unavailable, "")
		case 2:
			return refused(codes.ResourceExhausted, 300*time.Millisecond)
		case 3:
			return broker.Reject(errBroken)
		case 4:
			panic("oh")
		case 5:
			goexit()
		case 6:
			return m.Ack(ctx)
		case 7:
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		case 8:
			time.Sleep(4 * time.Second) // whatever the context says
		}
		return nil
	}
}
