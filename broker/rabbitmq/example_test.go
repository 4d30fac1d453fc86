package rabbitmq_test

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

func Example() {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	source, err := rabbitmq.Open(stop, rabbitmq.Config{
		URLs:          []string{"amqp://guest:guest@localhost/"},
		Queue:         "payments",
		DeadLetterKey: "payments.dead",
	})
	if err != nil {
		log.Fatal(err)
	}
	pay := func(ctx context.Context, m *broker.Message) error { return nil } // yours
	if err := broker.Consume(stop, source, pay, broker.ConsumeConfig{}); err != nil {
		log.Print(err)
	}
}
