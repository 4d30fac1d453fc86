package rabbitmq_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

// get takes one message from a queue without a source.
func get(t testing.TB, s *server, queue string) amqp.Delivery {
	t.Helper()
	var d amqp.Delivery
	err := s.with(t.Context(), func(ch *amqp.Channel) error {
		var ok bool
		var err error
		for end := time.Now().Add(patience); !ok && err == nil && time.Now().Before(end); {
			d, ok, err = ch.Get(queue, true)
		}
		if err == nil && !ok {
			err = errors.New("got none")
		}
		return err
	})
	if err != nil {
		t.Fatalf("get a message of %s: %v", queue, err)
	}
	return d
}

func ready(t testing.TB, s *server, queue string) (n int) {
	t.Helper()
	if err := s.with(t.Context(), func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		n = q.Messages
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDeadLetterKeepsTheMessage(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		stamp := time.Unix(1_700_000_000, 0).UTC()
		mustPublish(t, s, queue, amqp.Publishing{
			Body: []byte("b"), ContentType: "text/plain", MessageId: "m1", UserId: "guest", CorrelationId: "c1", Type: "t1",
			Priority: 1, Expiration: "3600000", Timestamp: stamp, AppId: "a1", ReplyTo: "r1",
			Headers: amqp.Table{"tenant": "acme", "n": int32(7), "CC": []any{queue + ".elsewhere"}},
		})
		source := open(t, s, queue)
		source.Request(1)
		m := next(t, source)
		if m.ID != "m1" {
			t.Errorf("ID = %q, want the message's own", m.ID)
		}
		if err := m.Nack(t.Context(), broker.DeadLetter("too late")); err != nil {
			t.Fatal(err)
		}
		if got := s.count.Unacked(queue); got != 0 {
			t.Errorf("the broker counts %d unacknowledged messages after the dead letter, want 0", got)
		}
		d := get(t, s, queue+".dead")
		for name, want := range map[string]any{
			rabbitmq.HeaderReason: "too late", rabbitmq.HeaderQueue: queue, rabbitmq.HeaderExchange: "",
			rabbitmq.HeaderRoutingKey: queue, rabbitmq.HeaderAttempt: int32(1), "tenant": "acme", "n": int32(7), "CC": nil,
		} {
			if got := d.Headers[name]; got != want {
				t.Errorf("header %s = %v, want %v", name, got, want)
			}
		}
		got := amqp.Publishing{
			Body: d.Body, ContentType: d.ContentType, MessageId: d.MessageId, CorrelationId: d.CorrelationId, Type: d.Type,
			Priority: d.Priority, Timestamp: d.Timestamp.UTC(), AppId: d.AppId, ReplyTo: d.ReplyTo, DeliveryMode: d.DeliveryMode,
		}
		if string(got.Body) != "b" || got.ContentType != "text/plain" || got.MessageId != "m1" || got.CorrelationId != "c1" || got.Type != "t1" ||
			got.Priority != 1 || !got.Timestamp.Equal(stamp) || got.AppId != "a1" || got.ReplyTo != "r1" || got.DeliveryMode != amqp.Persistent {
			t.Errorf("dead letter = %+v, want the properties of the message, persistent", got)
		}
		if d.Expiration != "" {
			t.Errorf("the dead letter expires after %s, want never", d.Expiration)
		}
	})
}

// A dead letter that the broker does not store leaves the message as it was.
func TestDeadLetterThatIsNotStored(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		name, want string
		config     func(ch *amqp.Channel, queue string, c *rabbitmq.Config) error
	}{
		{"no place", "cannot be set aside", func(_ *amqp.Channel, _ string, c *rabbitmq.Config) error {
			c.DeadLetterKey = ""
			return nil
		}},
		{"no route", "returned it", func(_ *amqp.Channel, queue string, c *rabbitmq.Config) error {
			c.DeadLetterExchange, c.DeadLetterKey = "amq.direct", queue+".nowhere"
			return nil
		}},
		{"full", "refused it", func(ch *amqp.Channel, queue string, c *rabbitmq.Config) error {
			c.DeadLetterKey = queue + ".full"
			_, err := ch.QueueDeclare(c.DeadLetterKey, true, false, false, false, amqp.Table{
				"x-max-length": int32(1), "x-overflow": "reject-publish",
			})
			if err != nil {
				return err
			}
			for range 2 { // the last one may be refused
				err = errors.Join(err, ch.PublishWithContext(t.Context(), "", c.DeadLetterKey, false, false, amqp.Publishing{}))
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			queue := newQueue(t, s, "classic")
			mustPublish(t, s, queue, numbered(1)...)
			config := rabbitmq.Config{URLs: []string{s.url(s.count.Addr())}, Queue: queue, DeadLetterKey: queue + ".dead"}
			if err := s.with(t.Context(), func(ch *amqp.Channel) error { return c.config(ch, queue, &config) }); err != nil {
				t.Fatal(err)
			}
			source, err := rabbitmq.Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { shut(t, source) })
			source.Request(1)
			m := next(t, source)
			for range 2 {
				err = m.Nack(t.Context(), broker.DeadLetter("bad"))
				if err == nil || errors.Is(err, broker.ErrSettled) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("dead letter: got %v, want an error with %q", err, c.want)
				}
				if got := s.count.Unacked(queue); got != 1 {
					t.Fatalf("the broker counts %d unacknowledged messages, want 1", got)
				}
			}
			ack(t, m)
		})
	}
}

// With a key of the message's own, the exchange for dead letters routes as the first one.
func TestDeadLetterExchange(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "quorum")
	exchange := queue + ".dlx"
	if err := s.with(t.Context(), func(ch *amqp.Channel) error {
		return errors.Join(ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil),
			ch.QueueBind(queue+".dead", "#", exchange, false, nil))
	}); err != nil {
		t.Fatal(err)
	}
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs: []string{s.url(s.count.Addr())}, Queue: queue, DeadLetterExchange: exchange,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, source) })
	mustPublish(t, s, queue, numbered(2)...)
	source.Request(2)
	for range 2 {
		if err := next(t, source).Nack(t.Context(), broker.DeadLetter("no")); err != nil {
			t.Fatal(err)
		}
		if d := get(t, s, queue+".dead"); d.RoutingKey != queue {
			t.Errorf("routing key of the dead letter = %q, want %q", d.RoutingKey, queue)
		}
	}
}

// While the broker is short of memory it stores nothing, and the other settlements go on.
func TestMemoryAlarm(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "classic")
	mustPublish(t, s, queue, numbered(4)...)
	source := open(t, s, queue)
	source.Request(3)
	first, second, third := next(t, source), next(t, source), next(t, source)
	set := func(bytes string) {
		s.eval(t, "vm_memory_monitor:set_vm_memory_high_watermark({absolute, "+bytes+"}).")
	}
	set("1")
	t.Cleanup(func() { set("536870912") })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := first.Nack(ctx, broker.DeadLetter("bad")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("dead letter during the alarm: got %v, want %v", err, context.DeadlineExceeded)
	}
	ack(t, second)
	if err := third.Nack(t.Context(), broker.Requeue()); err != nil {
		t.Fatalf("requeue during the alarm: %v", err)
	}
	source.Request(1)
	if m := next(t, source); string(m.Body) != "2" || m.Attempt != 2 {
		t.Fatalf("got message %q, attempt %d, want the third one again", m.Body, m.Attempt)
	} else {
		ack(t, m)
	}
	set("536870912")
	if err := first.Nack(t.Context(), broker.DeadLetter("bad")); err != nil {
		t.Fatalf("dead letter after the alarm: %v", err)
	}
	if d := get(t, s, queue+".dead"); string(d.Body) != "0" {
		t.Errorf("dead letter = %q, want the first message", d.Body)
	}
}
