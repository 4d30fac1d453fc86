package rabbitmq_test

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/rabbitmq"
)

func TestConformanceOfClassicQueues(t *testing.T) { conform(t, "classic") }

func TestConformanceOfQuorumQueues(t *testing.T) { conform(t, "quorum") }

func conform(t *testing.T, kind string) {
	t.Helper()
	brokertest.Run(t, brokertest.Broker{
		Start: func(t testing.TB) brokertest.Server { return &typed{server: serve(t), kind: kind} },
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
		// The client sends a heartbeat each second, and the broker answers none.
		IdleRequests: 6, RestRequests: 6,
		Ignore: []string{"rabbitmq_test.(*counter)"},
	})
}

// A typed server makes queues of one kind.
type typed struct {
	*server
	kind string
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
	return s.server.publish(ctx, queue, out...)
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

func (s *typed) Stop() error { return s.crash() }

func (s *typed) Restart() error { return s.start() }
