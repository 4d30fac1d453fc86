package nats_test

import (
	"context"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker/brokertest"
)

// BenchmarkSource compares the source with the client's Messages and acknowledgements that
// the server confirms. By hand up to twice the demand is unacknowledged, because Messages
// prefetches.
func BenchmarkSource(b *testing.B) {
	brokertest.Benchmark(b, describe(), 20000, func(ctx context.Context, c brokertest.Consumer, n int) error {
		nc, js, err := connect(c.Addr)
		if err != nil {
			return err
		}
		defer nc.Close()
		consumer, err := js.Consumer(ctx, c.Queue, worker)
		if err != nil {
			return err
		}
		it, err := consumer.Messages(jetstream.PullMaxMessages(brokertest.BenchmarkDemand))
		if err != nil {
			return err
		}
		defer it.Stop()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		slots := make(chan struct{}, brokertest.BenchmarkDemand)
		var work sync.WaitGroup
		for range n {
			slots <- struct{}{}
			m, err := it.Next()
			if err != nil {
				return err
			}
			work.Go(func() {
				defer func() { <-slots }()
				if err := m.DoubleAck(ctx); err != nil {
					cancel(err)
				}
			})
		}
		work.Wait()
		return context.Cause(ctx)
	})
}
