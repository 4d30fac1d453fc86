package kafka_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker/kafka"
)

// A consumer with two messages in work at most.
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
	source.Request(2)
	for range 3 {
		m, err := source.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", m.ID, m.Body)
		if err := m.Ack(ctx); err != nil {
			log.Print(err) // the message comes again, here or at another member of the group
		}
		source.Request(1)
	}
	if err := source.Close(ctx); err != nil { // commits and leaves the group
		log.Print(err)
	}
	// Output:
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
