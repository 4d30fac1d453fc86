package rabbitmq_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

// kinds are the types of queues that each test of this file runs with.
var kinds = []string{"classic", "quorum"}

var queues atomic.Int64

// newQueue makes an empty queue of its own, and one for its dead letters.
func newQueue(t testing.TB, s *server, kind string) string {
	t.Helper()
	queue := fmt.Sprintf("%s-%d-%s", kind, queues.Add(1), strings.ToLower(rand.Text()[:6]))
	if err := s.declare(t.Context(), queue, kind); err != nil {
		t.Fatal(err)
	}
	return queue
}

func (s *server) declare(ctx context.Context, queue, kind string) error {
	return s.with(ctx, func(ch *amqp.Channel) error {
		for _, name := range []string{queue, queue + ".dead"} {
			if _, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": kind}); err != nil {
				return err
			}
		}
		return nil
	})
}

// publish stores messages, and returns when the server has confirmed them.
func (s *server) publish(ctx context.Context, queue string, msgs ...amqp.Publishing) error {
	return s.with(ctx, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		confirms := make([]*amqp.DeferredConfirmation, len(msgs))
		for i, m := range msgs {
			m.DeliveryMode = amqp.Persistent
			var err error
			if confirms[i], err = ch.PublishWithDeferredConfirm("", queue, true, false, m); err != nil {
				return err
			}
		}
		for i, c := range confirms {
			if stored, err := c.WaitContext(ctx); err != nil || !stored {
				return fmt.Errorf("message %d: stored %v: %w", i, stored, err)
			}
		}
		return nil
	})
}

// numbered returns n messages whose bodies are numbers.
func numbered(n int) []amqp.Publishing {
	msgs := make([]amqp.Publishing, n)
	for i := range msgs {
		msgs[i] = amqp.Publishing{Body: fmt.Appendf(nil, "%d", i)}
	}
	return msgs
}

func mustPublish(t testing.TB, s *server, queue string, msgs ...amqp.Publishing) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := s.publish(ctx, queue, msgs...); err != nil {
		t.Fatalf("publish to %s: %v", queue, err)
	}
}

// open returns a source that consumes through the counter.
func open(t testing.TB, s *server, queue string) broker.Source {
	t.Helper()
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs: []string{s.url(s.count.Addr())}, Queue: queue, DeadLetterKey: queue + ".dead",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, source) })
	return source
}

// shut closes a source, and gives back the messages that are still held.
func shut(t testing.TB, source broker.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = source.Close(ctx)
}

// patience is the time within which a message must arrive on a busy machine.
const patience = 30 * time.Second

func next(t testing.TB, source broker.Source) *broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := source.Next(ctx)
	if err != nil {
		t.Fatalf("no message: %v", err)
	}
	return m
}

func ack(t testing.TB, msgs ...*broker.Message) {
	t.Helper()
	for _, m := range msgs {
		if err := m.Ack(t.Context()); err != nil {
			t.Fatalf("acknowledge %s: %v", m.ID, err)
		}
	}
}

func each(t *testing.T, f func(t *testing.T, s *server, queue string)) {
	t.Helper()
	s := serve(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { f(t, s, newQueue(t, s, kind)) })
	}
}

// A level demand needs one consumer, however many messages it gets.
func TestLevelDemandKeepsTheConsumer(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		const demand, n = 8, 500
		mustPublish(t, s, queue, numbered(n)...)
		source := open(t, s, queue)
		source.Request(demand)
		start := time.Now()
		for i := range n {
			m := next(t, source)
			if got, want := string(m.Body), fmt.Sprint(i); got != want {
				t.Fatalf("message %d: got %q, want %q", i, got, want)
			}
			source.Request(1)
			ack(t, m)
			if u := s.count.Unacked(queue); u > demand+1 {
				t.Fatalf("the broker counts %d unacknowledged messages, want at most %d", u, demand+1)
			}
		}
		t.Logf("%d messages in %v", n, time.Since(start))
		if got, most := s.count.Consumes(queue), 5; got > most {
			t.Errorf("%d consumers were started for %d messages, want at most %d", got, n, most)
		}
	})
}
