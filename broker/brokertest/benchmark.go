package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
)

// BenchmarkDemand is the demand of both sides of a Benchmark.
const BenchmarkDemand = 64

const (
	benchmarkPairs = 5
	benchmarkBody  = 1 << 10
	// benchmarkLeast is a bound for mistakes, such as a round trip for each message. A
	// busy machine does not reach it.
	benchmarkLeast = 0.5
)

// Benchmark compares a source with the client library used by hand. In each of five pairs
// of runs both consume as many messages, with BenchmarkDemand of them in flight. It reports
// the rate of the source divided by the rate by hand, as the median "ratio" with the lowest
// and the highest, and both median rates. It fails if the median is below 0.5.
//
// The function byHand consumes that number of messages of c.Queue at c.Addr, and returns
// when the broker has confirmed that all are acknowledged.
func Benchmark(b *testing.B, br Broker, messages int, byHand func(ctx context.Context, c Consumer, messages int) error) {
	b.Helper()
	if err := br.validate(); err != nil {
		b.Fatal(err)
	}
	server := br.Start(b)
	var ratios, sources, hands []float64
	for i := range benchmarkPairs {
		run := func(name string, consume func(context.Context, Consumer, int) error) float64 {
			rate, err := measure(b, br, server, fmt.Sprintf("bench-%s-%d", name, i), messages, consume)
			if err != nil {
				b.Fatalf("%s: %v", name, err)
			}
			return rate
		}
		bySource := func(ctx context.Context, c Consumer, n int) error { return consumeAll(ctx, br, c, n) }
		var source, hand float64
		if i%2 == 0 { // neither is always the first one
			source, hand = run("source", bySource), run("hand", byHand)
		} else {
			hand, source = run("hand", byHand), run("source", bySource)
		}
		ratios, sources, hands = append(ratios, source/hand), append(sources, source), append(hands, hand)
	}
	ratio := median(ratios)
	b.ReportMetric(0, "ns/op") // one operation is all of it
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(slices.Min(ratios), "lowest-ratio")
	b.ReportMetric(slices.Max(ratios), "highest-ratio")
	b.ReportMetric(median(sources), "source-msgs/s")
	b.ReportMetric(median(hands), "hand-msgs/s")
	if ratio < benchmarkLeast {
		b.Errorf("the source has %.2f of the throughput of the client by hand, want at least %.2f", ratio, benchmarkLeast)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// measure returns the messages a second that consume takes from a queue of its own.
func measure(
	t testing.TB, br Broker, server Server, queue string, n int, consume func(context.Context, Consumer, int) error,
) (rate float64, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	config := QueueConfig{Workers: 1}
	if br.AckTimeout > 0 {
		config.AckTimeout = max(br.AckTimeout, longAckTimeout)
	}
	if err := server.Create(ctx, queue, config); err != nil {
		return 0, err
	}
	msgs := make([]broker.Message, n)
	for i := range msgs {
		msgs[i] = broker.Message{Key: fmt.Sprintf("key-%d", i%100), Body: make([]byte, benchmarkBody)}
		for j := range msgs[i].Body {
			msgs[i].Body[j] = 'x'
		}
	}
	for batch := range slices.Chunk(msgs, 500) {
		if err := server.Publish(ctx, queue, batch...); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := consume(ctx, Consumer{Addr: server.Addr(), Queue: queue, Name: "worker", AckTimeout: config.AckTimeout}, n); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// consumeAll consumes n messages with a source.
func consumeAll(ctx context.Context, br Broker, c Consumer, n int) error {
	source, err := br.Open(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(n))
	var work sync.WaitGroup
	source.Request(BenchmarkDemand)
	for range BenchmarkDemand {
		work.Go(func() {
			for {
				m, err := source.Next(ctx)
				if err == nil {
					source.Request(1)
					err = m.Ack(ctx)
				}
				switch {
				case err != nil:
					cancel(err)
					return
				case left.Add(-1) == 0:
					cancel(nil)
				}
			}
		})
	}
	work.Wait()
	err = context.Cause(ctx)
	if left.Load() == 0 {
		err = nil
	}
	end, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	_ = source.Close(end)
	return err
}
