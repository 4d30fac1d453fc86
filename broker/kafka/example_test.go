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

// A consumer whose handlers run under a gate. The gate's room is the demand.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addrs, stop := fakeKafka(ctx)
	defer stop()

	source, err := kafka.Open(kafka.Config{
		Seeds: addrs, Group: "payments", Topics: []string{"orders"},
		DeadLetterTopic: "orders.dead",
	})
	if err != nil {
		log.Fatal(err)
	}
	var left atomic.Int64
	left.Store(3)
	handle := func(_ context.Context, m *broker.Message) error {
		fmt.Printf("%s: %s\n", m.ID, m.Body)
		if left.Add(-1) == 0 {
			cancel() // a service does so on SIGTERM
		}
		return nil // acknowledges the message
	}
	// Consume returns when ctx has ended, the handlers have returned, and the group is left.
	if err := broker.Consume(ctx, source, handle, broker.ConsumeConfig{}); err != nil {
		log.Print(err)
	}
	// Unordered output:
	// orders/0/0: book
	// orders/0/1: lamp
	// orders/0/2: chair
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
