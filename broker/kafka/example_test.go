package kafka_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
)

// consumeOrders pays for the orders until ctx ends. A payment is acknowledged when pay returns nil.
func consumeOrders(ctx context.Context, seeds []string, pay func(ctx context.Context, order []byte) error) error {
	source, err := kafka.Open(kafka.Config{
		Seeds: seeds, Group: "payments", Topics: []string{"orders"},
		DeadLetterTopic: "orders.dead",
	}) // further arguments are options of franz-go, such as TLS, SASL, balancers and a logger
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, m *broker.Message) error { return pay(ctx, m.Body) }
	return broker.Consume(ctx, source, handle, broker.ConsumeConfig{Ordered: true})
}

// A consumer whose handlers run under a gate. The gate's room is the demand.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addrs, stop := fakeKafka(ctx)
	defer stop()

	var left atomic.Int64
	left.Store(3)
	pay := func(_ context.Context, order []byte) error {
		fmt.Printf("%s\n", order)
		if left.Add(-1) == 0 {
			cancel() // a service does so on SIGTERM
		}
		return nil
	}
	// It returns when ctx has ended, the handlers have returned, and the group is left.
	if err := consumeOrders(ctx, addrs, pay); err != nil {
		log.Print(err)
	}
	// Unordered output:
	// book
	// lamp
	// chair
}

// fakeKafka starts a server in this process, with three orders.
func fakeKafka(ctx context.Context) (addrs []string, stop func()) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "orders.dead"))
	if err != nil {
		log.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for _, order := range []string{"book", "lamp", "chair"} {
		r := &kgo.Record{Topic: "orders", Value: []byte(order)}
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			log.Fatal(err)
		}
	}
	return fake.ListenAddrs(), fake.Close
}
