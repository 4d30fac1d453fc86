package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

// An acknowledgement of a lost connection must not acknowledge another message with the same
// tag.
func TestTagsDieWithTheChannel(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		const n = 4
		mustPublish(t, s, queue, numbered(n)...)
		source := open(t, s, queue)
		source.Request(2 * n)
		var old, again []*broker.Message
		for range n {
			old = append(old, next(t, source))
		}
		s.count.Cut()
		for range n {
			again = append(again, next(t, source))
		}
		for i, m := range again {
			if got, want := string(m.Body), fmt.Sprint(i); got != want || m.Attempt < 2 {
				t.Errorf("message %d after the loss: got %q, attempt %d, want %q, at least 2", i, got, m.Attempt, want)
			}
		}
		for i, m := range old {
			var err error
			switch i {
			case 0:
				err = m.Extend(t.Context())
			case 1:
				err = m.Nack(t.Context(), broker.Requeue())
			case 2:
				err = m.Nack(t.Context(), broker.DeadLetter("late"))
			default:
				err = m.Ack(t.Context())
			}
			if !errors.Is(err, rabbitmq.ErrLost) || !errors.Is(err, broker.ErrSettled) {
				t.Errorf("settlement %d of a lost connection: got %v, want %v", i, err, rabbitmq.ErrLost)
			}
			if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
				t.Errorf("second settlement %d: got %v, want %v", i, err, broker.ErrSettled)
			}
		}
		if got := s.count.Unacked(queue); got != n {
			t.Errorf("the broker counts %d unacknowledged messages, want %d", got, n)
		}
		if got := ready(t, s, queue+".dead"); got != 0 {
			t.Errorf("%d dead letters, want none of a lost connection", got)
		}
		ack(t, again...)
		if u, r := s.count.Unacked(queue), ready(t, s, queue); u+r != 0 {
			t.Errorf("%d unacknowledged and %d ready messages are left, want none", u, r)
		}
	})
}

// Messages of a lost connection that are still held take up demand.
func TestLostMessagesCountUntilTheyAreSettled(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "classic")
	mustPublish(t, s, queue, numbered(5)...)
	source := open(t, s, queue)
	source.Request(2)
	first, second := next(t, source), next(t, source)
	s.count.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond) // longer than the delay of the first attempt
	defer cancel()
	if m, err := source.Next(ctx); err == nil {
		t.Fatalf("got message %q while both requested ones are held", m.Body)
	}
	if err := first.Ack(t.Context()); !errors.Is(err, rabbitmq.ErrLost) {
		t.Errorf("acknowledge: got %v, want %v", err, rabbitmq.ErrLost)
	}
	source.Request(1)
	m := next(t, source)
	if got := s.count.Unacked(queue); got != 1 {
		t.Errorf("the broker counts %d unacknowledged messages, want 1 beside the one that is held", got)
	}
	ack(t, m)
	_ = second.Ack(t.Context())
}

// The broker closes the channel of a message that was held for too long.
func TestConsumerTimeout(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "classic")
	mustPublish(t, s, queue, numbered(1)...)
	s.eval(t, "application:set_env(rabbit, consumer_timeout, 500), application:set_env(rabbit, channel_tick_interval, 100).")
	var lost atomic.Value
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs: []string{s.url(s.count.Addr())}, Queue: queue, Source: broker.SourceConfig{OnError: func(err error) { lost.Store(err.Error()) }},
	})
	s.eval(t, "application:set_env(rabbit, consumer_timeout, 1800000).")
	t.Cleanup(func() { s.eval(t, "application:set_env(rabbit, channel_tick_interval, 60000).") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, source) })
	source.Request(2)
	m := next(t, source)
	again := next(t, source)
	if string(again.Body) != "0" || again.Attempt != 2 {
		t.Errorf("got message %q, attempt %d, want the same again", again.Body, again.Attempt)
	}
	if text, _ := lost.Load().(string); !strings.Contains(text, "timed out") {
		t.Errorf("OnError got %q, want the broker's reason", text)
	}
	if err := m.Ack(t.Context()); !errors.Is(err, rabbitmq.ErrLost) {
		t.Errorf("acknowledge after the timeout: got %v, want %v", err, rabbitmq.ErrLost)
	}
	ack(t, again)
}

// A broker that hangs is noticed by its heartbeats. Settlements do not outlive their
// contexts meanwhile.
func TestBrokerHangs(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "quorum")
	mustPublish(t, s, queue, numbered(6)...)
	var failures atomic.Int64
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs: []string{s.url(s.count.Addr())}, Queue: queue, DeadLetterKey: queue + ".dead",
		Client: amqp.Config{Heartbeat: time.Second}, Source: broker.SourceConfig{OnError: func(error) { failures.Add(1) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, source) })
	source.Request(7) // one more than there are, so that the source waits for it
	first, second, third := next(t, source), next(t, source), next(t, source)
	if err := s.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.signal(syscall.SIGCONT) })
	var work sync.WaitGroup
	for i, settle := range []func(context.Context) error{
		func(ctx context.Context) error { return first.Ack(ctx) },
		func(ctx context.Context) error { return second.Nack(ctx, broker.Requeue()) },
		func(ctx context.Context) error { return third.Nack(ctx, broker.DeadLetter("bad")) },
	} {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if err := settle(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("settlement %d while the broker hangs: got %v, want %v", i, err, context.DeadlineExceeded)
			}
		})
	}
	work.Wait()
	for end := time.Now().Add(patience); failures.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the source has not noticed that the broker hangs")
		}
	}
	if err := s.signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*broker.Message{first, second, third} {
		if err := m.Ack(t.Context()); err != nil && !errors.Is(err, broker.ErrSettled) {
			t.Errorf("acknowledge after the loss: %v", err)
		}
	}
	seen := map[string]bool{}
	for len(seen) < 6 {
		source.Request(1)
		m := next(t, source) // some were fetched before the loss
		if err := m.Ack(t.Context()); err == nil {
			seen[string(m.Body)] = true
		} else if !errors.Is(err, broker.ErrSettled) {
			t.Fatalf("acknowledge %s: %v", m.Body, err)
		}
	}
}

// A queue that is deleted and made again is consumed again.
func TestQueueIsDeleted(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		var failures atomic.Int64
		source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
			URLs: []string{s.url(s.count.Addr())}, Queue: queue, Source: broker.SourceConfig{OnError: func(error) { failures.Add(1) }},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shut(t, source) })
		mustPublish(t, s, queue, numbered(1)...)
		source.Request(2)
		m := next(t, source)
		if err := s.with(t.Context(), func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(queue, false, false, false)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); failures.Load() < 2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d errors were reported, want the loss and an attempt", failures.Load())
			}
		}
		if err := m.Ack(t.Context()); !errors.Is(err, rabbitmq.ErrLost) {
			t.Errorf("acknowledge a message of a deleted queue: got %v, want %v", err, rabbitmq.ErrLost)
		}
		if err := s.with(t.Context(), func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(queue, true, false, false, false, nil)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, s, queue, amqp.Publishing{Body: []byte("new")})
		if m := next(t, source); string(m.Body) != "new" {
			t.Errorf("got %q, want the message of the new queue", m.Body)
		} else {
			ack(t, m)
		}
	})
}

// Close during the delay before an attempt to connect does not wait for it.
func TestCloseWhileTheConnectionIsLost(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "classic")
	mustPublish(t, s, queue, numbered(1)...)
	down, err := newCounter(s.direct())
	if err != nil {
		t.Fatal(err)
	}
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{URLs: []string{s.url(down.Addr())}, Queue: queue})
	if err != nil {
		t.Fatal(err)
	}
	source.Request(1)
	m := next(t, source)
	_ = down.Close()
	for m.Extend(t.Context()) == nil { // until the loss is known
		time.Sleep(time.Millisecond)
	}
	if err := source.Close(t.Context()); err != nil {
		t.Errorf("Close = %v, want nil", err)
	}
	if _, err := source.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("Next after Close: got %v, want %v", err, io.EOF)
	}
}

// Close gives back what is held when its context ends.
func TestCloseGivesBackHeldMessages(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		mustPublish(t, s, queue, numbered(5)...)
		source := open(t, s, queue)
		source.Request(4)
		m := next(t, source)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := source.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Close with a message held: got %v, want %v", err, context.Canceled)
		}
		if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
			t.Errorf("acknowledge after Close: got %v, want %v", err, broker.ErrSettled)
		}
		other := open(t, s, queue)
		other.Request(5)
		seen := map[string]bool{}
		for range 5 {
			seen[string(next(t, other).Body)] = true
		}
		if len(seen) != 5 {
			t.Errorf("got messages %v, want all 5", seen)
		}
	})
}

// The nodes of a cluster are tried in turn.
func TestNextNode(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "classic")
	first, err := newCounter(s.direct())
	if err != nil {
		t.Fatal(err)
	}
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs:  []string{"amqp://guest:guest@127.0.0.1:1/", s.url(first.Addr()), s.url(s.count.Addr())},
		Queue: queue, Client: amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{Username: "guest", Password: "guest"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, source) })
	mustPublish(t, s, queue, numbered(2)...)
	source.Request(1)
	ack(t, next(t, source))
	_ = first.Close()
	source.Request(1)
	ack(t, next(t, source))
}
