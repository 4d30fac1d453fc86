package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/rabbitmq"
)

func TestConformanceOfClassicQueues(t *testing.T) {
	conform(t, "classic", map[string]string{
		"restart": "a start takes long; the classic queue of TestConformanceOfQuorumQueues lives through its restart",
	})
}

func TestConformanceOfQuorumQueues(t *testing.T) { conform(t, "quorum", nil) }

func conform(t *testing.T, kind string, without map[string]string) {
	t.Helper()
	brokertest.Run(t, brokertest.Broker{
		Start:   func(t testing.TB) brokertest.Server { return &typed{server: serve(t), kind: kind, t: t} },
		Without: without,
		Open: func(ctx context.Context, c brokertest.Consumer) (broker.Source, error) {
			return rabbitmq.Open(ctx, rabbitmq.Config{
				URLs: []string{"amqp://guest:guest@" + c.Addr + "/"}, Queue: c.Queue, Name: c.Name,
				DeadLetterKey: c.Queue + ".dead",
				Key: func(d amqp.Delivery) string {
					key, _ := d.Headers["key"].(string)
					return key
				},
				Client: amqp.Config{Heartbeat: 2 * time.Second},
			})
		},
		Patience: time.Minute,
		// The client sends a heartbeat each second.
		IdleRequests: 15, RestRequests: 15,
		Ignore: []string{"rabbitmq_test.(*counter)"},
	})
}

// A typed server makes queues of one kind.
type typed struct {
	*server
	kind string
	t    testing.TB

	classic string // a queue that lives through a restart
	source  broker.Source
	held    []*broker.Message
}

var _ brokertest.Server = (*typed)(nil)

// Addr is the address of the counter in front of the server.
func (s *typed) Addr() string { return s.count.Addr() }

func (s *typed) Create(ctx context.Context, queue string, _ brokertest.QueueConfig) error {
	return s.declare(ctx, queue, s.kind)
}

func (s *typed) Publish(ctx context.Context, queue string, msgs ...broker.Message) error {
	out := make([]amqp.Publishing, len(msgs))
	for i, m := range msgs {
		out[i] = amqp.Publishing{Body: m.Body, Headers: amqp.Table{}}
		for k, v := range m.Attributes {
			out[i].Headers[k] = v
		}
		if m.Key != "" {
			out[i].Headers["key"] = m.Key
		}
	}
	return s.publish(ctx, queue, out...)
}

// Counts asks the server for the messages that are ready, and the counter for the others.
func (s *typed) Counts(ctx context.Context, queue string) (counts brokertest.Counts, err error) {
	counts.Unacked, counts.Misuse = s.count.Unacked(queue), s.count.Misuse(queue)
	const moment = 50 * time.Millisecond
	if since := s.count.Returned(queue); since < moment {
		time.Sleep(moment - since)
	}
	err = s.with(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		counts.Ready = q.Messages
		return err
	})
	return counts, err
}

func (s *typed) DeadLetters(ctx context.Context, queue string) (dead []brokertest.DeadLetter, err error) {
	err = s.with(ctx, func(ch *amqp.Channel) error {
		for {
			d, ok, err := ch.Get(queue+".dead", false)
			if err != nil || !ok {
				return err
			}
			reason, _ := d.Headers[rabbitmq.HeaderReason].(string)
			dead = append(dead, brokertest.DeadLetter{Body: d.Body, Reason: reason})
		}
	})
	return dead, err
}

// restartHeld and restartAll are numbers of messages of a classic queue.
const restartHeld, restartAll = 3, 20

// Stop crashes the server while a source holds some messages of a classic queue.
func (s *typed) Stop() error {
	s.classic = newQueue(s.t, s.server, "classic")
	mustPublish(s.t, s.server, s.classic, numbered(restartAll)...)
	s.source = open(s.t, s.server, s.classic)
	s.source.Request(restartHeld)
	for range restartHeld {
		s.held = append(s.held, next(s.t, s.source))
	}
	return s.crash()
}

// Restart starts the server. The source of the classic queue must get all messages again.
func (s *typed) Restart() error {
	if err := s.start(); err != nil {
		return err
	}
	for _, m := range s.held {
		if err := m.Ack(s.t.Context()); !errors.Is(err, broker.ErrSettled) {
			return fmt.Errorf("acknowledge %s, which was held during the restart: got %w, want %w", m.Body, err, broker.ErrSettled)
		}
	}
	seen := map[string]bool{}
	for len(seen) < restartAll {
		s.source.Request(1)
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		m, err := s.source.Next(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("after %d of %d messages of a classic queue: %w", len(seen), restartAll, err)
		}
		seen[string(m.Body)] = true
		if err := m.Ack(s.t.Context()); err != nil {
			return err
		}
	}
	return nil
}
