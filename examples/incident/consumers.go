package main

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
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

// consumeBare is the consumer of the incident.
func consumeBare(k kind, j job) error {
	gateway, err := grpc.NewClient(j.Gateway, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	return k.bare(j.Broker, func(body []byte) {
		for payment(context.Background(), gateway, body) != nil {
			continue // try again
		}
	})
}

// A queue has no bound.
type queue[T any] struct {
	mu    sync.Mutex // guards items
	more  sync.Cond
	items []T
}

// newQueue returns a queue with workers that call work for each item.
func newQueue[T any](work func(T)) *queue[T] {
	q := new(queue[T])
	q.more.L = &q.mu
	for range workers {
		go func() {
			for {
				work(q.take())
			}
		}()
	}
	return q
}

func (q *queue[T]) put(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, item)
	q.more.Signal()
}

func (q *queue[T]) take() T {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		q.more.Wait()
	}
	item := q.items[0]
	clear(q.items[:1]) // a payment that was taken is not kept
	q.items = q.items[1:]
	return item
}

// A report is the state of the consumer with weir.
type report struct {
	InFlight int `json:"inFlight"`
	Limit    int `json:"limit"`
}

// consumeWithWeir is the same consumer with weir. The limit of its gate follows the gateway,
// and the gate's room is the demand at the broker.
func consumeWithWeir(k kind, j job, out io.Writer) error {
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
	source, err := k.source(context.Background(), j.Broker)
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
