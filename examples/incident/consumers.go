package main

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
)

// idBytes is the length of a payment's number, with which a payment begins.
const idBytes = 16

// payment calls the gateway for one payment.
func payment(ctx context.Context, gateway *grpc.ClientConn, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return gateway.Invoke(ctx, "/"+service+"/Pay", &blob{Value: body[:idBytes]}, new(blob))
}

// consumeBare is the consumer of the incident. It polls as fast as it can, puts the records
// into a queue without a bound, and commits what it has polled.
func consumeBare(j job) error {
	gateway, err := grpc.NewClient(j.Gateway, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(j.Broker), kgo.ConsumerGroup(j.Role), kgo.ConsumeTopics(topic),
		kgo.AutoCommitInterval(time.Second))
	if err != nil {
		return err
	}
	q := queue{more: sync.NewCond(new(sync.Mutex))}
	for range workers {
		go func() {
			for {
				if r := q.take(); payment(context.Background(), gateway, r.Value) != nil {
					q.put(r) // try again later
				}
			}
		}()
	}
	for {
		client.PollFetches(context.Background()).EachRecord(q.put)
	}
}

// A queue has no bound.
type queue struct {
	more    *sync.Cond
	records []*kgo.Record
}

func (q *queue) put(r *kgo.Record) {
	q.more.L.Lock()
	defer q.more.L.Unlock()
	q.records = append(q.records, r)
	q.more.Signal()
}

func (q *queue) take() *kgo.Record {
	q.more.L.Lock()
	defer q.more.L.Unlock()
	for len(q.records) == 0 {
		q.more.Wait()
	}
	r := q.records[0]
	q.records = q.records[1:]
	return r
}

// A report is the state of the consumer with weir.
type report struct {
	InFlight int `json:"inFlight"`
	Limit    int `json:"limit"`
}

// consumeWithWeir is the same consumer with weir. The limit of its gate follows the gateway,
// and the gate's room is the demand at the broker.
func consumeWithWeir(j job, out io.Writer) error {
	circuit, err := breaker.New(breaker.Config{Window: 2 * time.Second, OpenFor: 500 * time.Millisecond})
	if err != nil {
		return err
	}
	opts, err := interceptors.Client(interceptors.ClientConfig{Breaker: circuit})
	if err != nil {
		return err
	}
	gateway, err := grpc.NewClient(j.Gateway, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return err
	}
	gate, err := admit.New()
	if err != nil {
		return err
	}
	source, err := kafka.Open(kafka.Config{
		Seeds: []string{j.Broker}, Group: j.Role, Topics: []string{topic}, DeadLetterTopic: topic + ".dead",
	})
	if err != nil {
		return err
	}
	go func() {
		for to := json.NewEncoder(out); ; time.Sleep(sampling) {
			s := gate.Stats()
			if err := to.Encode(report{s.InFlight, s.Limit}); err != nil {
				return
			}
		}
	}()
	handle := func(ctx context.Context, m *broker.Message) error { return payment(ctx, gateway, m.Body) }
	return broker.Consume(context.Background(), source, handle, broker.ConsumeConfig{Gate: gate})
}
