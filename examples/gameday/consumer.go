package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/broker"
)

// arrival is the time between two messages of the queue.
const arrival = 20 * time.Millisecond

// A queue is a broker in memory. Its messages are numbers, and it forgets them when they are settled.
type queue struct {
	mu      sync.Mutex // guards backlog
	backlog int
	some    chan struct{} // has a value if there may be a message
}

func newQueue() *queue { return &queue{some: make(chan struct{}, 1)} }

// add adds messages.
func (q *queue) add(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backlog += n
	select {
	case q.some <- struct{}{}:
	default:
	}
}

func (q *queue) take(n int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, q.backlog)
	q.backlog -= n
	return n
}

// Fetch implements broker.Fetcher.
func (q *queue) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	for {
		if got := q.take(n); got > 0 {
			all := make([]*broker.Message, got)
			for i := range all {
				all[i] = broker.NewMessage(broker.Message{}, settler{q})
			}
			return all, nil
		}
		select {
		case <-q.some:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// Close implements broker.Fetcher.
func (q *queue) Close(context.Context) error { return nil }

// A settler settles a message of a queue.
type settler struct{ *queue }

func (s settler) Ack(context.Context) error                { return nil }
func (s settler) Requeue(context.Context) error            { s.add(1); return nil }
func (s settler) DeadLetter(context.Context, string) error { return nil }
func (s settler) Extend(context.Context) error             { return nil }

// consume lets messages come, and handles them under a gate, until ctx ends.
func (s *system) consume(ctx context.Context) error {
	q := newQueue()
	source, err := broker.NewSource(q, broker.SourceConfig{Name: "orders", Meter: s.orders})
	if err != nil {
		return err
	}
	var producer sync.WaitGroup
	defer producer.Wait()
	producer.Go(func() {
		for sleep(ctx, arrival) {
			q.add(1)
		}
	})
	return broker.Consume(ctx, source, func(ctx context.Context, _ *broker.Message) error {
		if s.is(faultConsumer) {
			return status.Error(codes.Unavailable, "warehouse: closed")
		}
		sleep(ctx, ownWork)
		return nil
	}, broker.ConsumeConfig{Gate: s.consumer, Meter: s.orders, MaxPause: time.Second, Grace: time.Second})
}

// openConsumer makes the gate and the meter of the consumer.
func (s *system) openConsumer() (err error) {
	s.orders = broker.NewMeter("orders")
	if s.consumer, err = s.gate("consumer", 0); err != nil {
		return err
	}
	return s.watch(s.orders)
}
