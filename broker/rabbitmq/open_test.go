package rabbitmq_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

func TestOpenNamesEveryMistake(t *testing.T) {
	_, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs: []string{"http://localhost"}, Name: strings.Repeat("n", 300),
		Arguments: amqp.Table{"x": struct{}{}}, Client: amqp.Config{Recovery: &amqp.Recovery{}},
		Source: broker.SourceConfig{ExtendEvery: time.Second, MaxHold: -1},
	})
	if !errors.Is(err, rabbitmq.ErrConfig) {
		t.Fatalf("got %v, want %v", err, rabbitmq.ErrConfig)
	}
	for _, want := range []string{
		"URLs[0]: ", "Queue: got none, want the name of a queue", "Name: got 300 bytes, want at most ", "Arguments: ",
		"Client.Recovery: got one, want nil", "Source: ExtendEvery: got 1s, want 0",
		"Source: MaxHold: got -1ns, want more than 0, or 0 for 1h0m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if _, err = rabbitmq.Open(t.Context(), rabbitmq.Config{Queue: "q", DeadLetterKey: "q"}); !errors.Is(err, rabbitmq.ErrConfig) ||
		!strings.Contains(err.Error(), "URLs") || !strings.Contains(err.Error(), "DeadLetterKey") {
		t.Errorf("got %v, want both mistakes", err)
	}
}

func TestOpenFails(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "classic")
	url := s.url(s.count.Addr())
	for _, c := range []struct {
		name, want string
		config     rabbitmq.Config
	}{
		{"no server", "refused", rabbitmq.Config{URLs: []string{"amqp://127.0.0.1:1/"}, Queue: queue}},
		{"no queue", "NOT_FOUND", rabbitmq.Config{URLs: []string{url}, Queue: "none"}},
		{"no dead letter queue", "NOT_FOUND", rabbitmq.Config{URLs: []string{url}, Queue: queue, DeadLetterKey: "none"}},
		{"no dead letter exchange", "NOT_FOUND", rabbitmq.Config{URLs: []string{url}, Queue: queue, DeadLetterExchange: "none"}},
		{"wrong password", "username or password", rabbitmq.Config{URLs: []string{strings.Replace(url, "guest@", "wrong@", 1)}, Queue: queue}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := rabbitmq.Open(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// A server that accepts connections and says nothing does not hold up Open.
func TestOpenEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = rabbitmq.Open(ctx, rabbitmq.Config{URLs: []string{"amqp://" + l.Addr().String() + "/"}, Queue: "q"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

// A stream is read by position, so a source cannot consume it.
func TestStreamIsAnError(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "stream")
	source := open(t, s, queue)
	source.Request(2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for s.count.Consumes(queue) == 0 && ctx.Err() == nil { // a stream begins with the next message
		time.Sleep(time.Millisecond)
	}
	var err error
	for ctx.Err() == nil && !errors.Is(err, broker.ErrPermanent) {
		mustPublish(t, s, queue, numbered(1)...)
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, err = source.Next(short)
		cancel()
	}
	if ctx.Err() != nil {
		t.Fatalf("Next on a stream: got %v, want %v", err, broker.ErrPermanent)
	}
	if err := source.Close(ctx); err != nil {
		t.Errorf("Close: got %v, want nil", err)
	}
}

func TestMessage(t *testing.T) {
	s := serve(t)
	queue := newQueue(t, s, "quorum")
	source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
		URLs: []string{s.url(s.count.Addr())}, Queue: queue, Key: func(d amqp.Delivery) string { return d.RoutingKey },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, source) })
	mustPublish(t, s, queue, amqp.Publishing{
		ContentType: "text/plain", CorrelationId: "c", Type: "t",
		Headers: amqp.Table{"text": "a", "bytes": []byte("b"), "binary": []byte{0xff}, "number": int64(1), "type": "own"},
	})
	for attempt := 1; attempt <= 3; attempt++ {
		source.Request(1)
		m := next(t, source)
		for name, want := range map[string]string{
			"text": "a", "bytes": "b", "binary": "", "number": "", "type": "own", "content-type": "text/plain", "correlation-id": "c",
		} {
			if got := m.Attributes[name]; got != want {
				t.Errorf("attribute %s = %q, want %q", name, got, want)
			}
		}
		if m.Key != queue || m.Attempt != attempt || m.ID == "" {
			t.Errorf("key, attempt, ID = %q, %d, %q, want %q, %d, not empty", m.Key, m.Attempt, m.ID, queue, attempt)
		}
		if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
			t.Fatal(err)
		}
	}
	// A quorum queue remembers the attempts. Another process would see the same.
	other := open(t, s, queue)
	other.Request(1)
	m := next(t, other)
	if m.Attempt != 4 {
		t.Errorf("attempt in another source = %d, want 4", m.Attempt)
	}
	ack(t, m)
}
