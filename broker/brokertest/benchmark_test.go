package brokertest_test

import (
	"context"
	"net/rpc"
	"sync"
	"testing"
	"time"

	"github.com/weir-go/weir/broker/brokertest"
)

// BenchmarkWire shows what the pump of broker.NewSource costs with a broker that does
// almost nothing.
func BenchmarkWire(b *testing.B) {
	brokertest.Benchmark(b, describe(faults{}), 20000, wireByHand)
}

// wireByHand is a loop that fetches, with goroutines that acknowledge.
func wireByHand(ctx context.Context, c brokertest.Consumer, n int) error {
	client, err := rpc.Dial("tcp", c.Addr)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, brokertest.BenchmarkDemand)
	var work sync.WaitGroup
	for got := 0; got < n; {
		slots <- struct{}{}
		free := 1
		for free < brokertest.BenchmarkDemand {
			select {
			case slots <- struct{}{}:
				free++
				continue
			default:
			}
			break
		}
		var msgs []WireMessage
		if err := client.Call("Wire.Fetch", WireFetch{Queue: c.Queue, N: free, Wait: time.Second}, &msgs); err != nil {
			return err
		}
		for range free - len(msgs) {
			<-slots
		}
		got += len(msgs)
		for _, m := range msgs {
			work.Go(func() {
				defer func() { <-slots }()
				if err := client.Call("Wire.Settle", WireSettle{m.Tag, "ack", ""}, new(int)); err != nil {
					cancel(err)
				}
			})
		}
	}
	work.Wait()
	return context.Cause(ctx)
}
