package rabbitmq_test

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

// consume pays until ctx ends. A payment is acknowledged when pay returns nil. The queues must exist.
func consume(ctx context.Context, pay func(ctx context.Context, payment []byte) error) error {
	source, err := rabbitmq.Open(ctx, rabbitmq.Config{
		URLs:          []string{"amqp://user:password@rabbit-1/", "amqp://user:password@rabbit-2/"},
		Queue:         "payments",
		DeadLetterKey: "payments.dead", // a queue, by way of the default exchange
	})
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, m *broker.Message) error { return pay(ctx, m.Body) }
	return broker.Consume(ctx, source, handle, broker.ConsumeConfig{})
}

func Example() {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	pay := func(context.Context, []byte) error { return nil } // yours
	if err := consume(stop, pay); err != nil {
		log.Print(err)
	}
}
