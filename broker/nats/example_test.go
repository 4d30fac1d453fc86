package nats_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	weirnats "github.com/weir-go/weir/broker/nats"
)

// consume pays until ctx ends. A payment is acknowledged when pay returns nil.
func consume(ctx context.Context, url string, pay func(ctx context.Context, m *broker.Message) error) error {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close() // after the source, which Consume closes
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	source, err := weirnats.Open(ctx, js, weirnats.Config{
		Stream: "PAYMENTS", Consumer: "gateway", DeadLetter: "dead.payments",
	})
	if err != nil {
		return err
	}
	return broker.Consume(ctx, source, pay, broker.ConsumeConfig{})
}

func Example() {
	url, stop := exampleServer()
	defer stop()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := consume(ctx, url, func(_ context.Context, m *broker.Message) error {
		fmt.Printf("%s: %s\n", m.Key, m.Body)
		cancel() // one message is enough for an example
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// payments.shop-7: 5 EUR
}

// exampleServer starts a server with a stream for payments, one payment, a durable
// consumer, and a stream for dead letters.
func exampleServer() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "nats")
	if err != nil {
		log.Fatal(err)
	}
	s, err := newServer(dir)
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	ctx := context.Background()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	for name, subject := range map[string]string{"PAYMENTS": "payments.>", "DEAD": "dead.>"} {
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
			log.Fatal(err)
		}
	}
	consumer := jetstream.ConsumerConfig{Durable: "gateway", AckPolicy: jetstream.AckExplicitPolicy}
	if _, err := js.CreateConsumer(ctx, "PAYMENTS", consumer); err != nil {
		log.Fatal(err)
	}
	if _, err := js.Publish(ctx, "payments.shop-7", []byte("5 EUR")); err != nil {
		log.Fatal(err)
	}
	return s.ClientURL(), func() {
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}
