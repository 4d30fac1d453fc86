package rabbitmq_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker/rabbitmq"
)

// BenchmarkThroughput compares a source at demand 64 with the client library used by hand at
// prefetch count 64. Both have 64 workers, one of them after the other, and each round has
// fresh queues. It reports the median of the ratios of five rounds, and of the rates.
func BenchmarkThroughput(b *testing.B) {
	const workers, rounds = 64, 5
	s := serve(b)
	n := 4000
	if os.Getenv("WEIR_BENCH_SECONDS") != "" {
		n = 500 // it must run here, and measures elsewhere
	}
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			for range b.N {
				var ratios, source, hand []float64
				for range rounds {
					a := rate(b, s, kind, n, func(queue string) time.Duration { return consumeSource(b, s, queue, workers, n) })
					h := rate(b, s, kind, n, func(queue string) time.Duration { return consumeByHand(b, s, queue, workers, n) })
					ratios, source, hand = append(ratios, a/h), append(source, a), append(hand, h)
				}
				b.ReportMetric(median(ratios), "source/hand")
				b.ReportMetric(slices.Min(ratios), "lowest")
				b.ReportMetric(slices.Max(ratios), "highest")
				b.ReportMetric(median(source), "source/s")
				b.ReportMetric(median(hand), "hand/s")
			}
		})
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// rate fills a queue and returns how many messages per second are consumed.
func rate(b *testing.B, s *server, kind string, n int, consume func(queue string) time.Duration) float64 {
	b.Helper()
	queue := newQueue(b, s, kind)
	msgs := make([]amqp.Publishing, n)
	for i := range msgs {
		msgs[i] = amqp.Publishing{Body: []byte(strconv.Itoa(i) + " a message of a hundred bytes or so, to have a body that is not empty, and some more of it")}
	}
	mustPublish(b, s, queue, msgs...)
	rate := float64(n) / consume(queue).Seconds()
	if err := s.with(b.Context(), func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return rate
}

// consumeSource returns the time from the first request to the last acknowledgement.
func consumeSource(b *testing.B, s *server, queue string, workers, n int) time.Duration {
	b.Helper()
	source, err := rabbitmq.Open(b.Context(), rabbitmq.Config{URLs: []string{s.url(s.direct())}, Queue: queue})
	if err != nil {
		b.Fatal(err)
	}
	defer shut(b, source)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var left atomic.Int64
	left.Store(int64(n))
	begin := time.Now()
	source.Request(workers)
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for {
				m, err := source.Next(ctx)
				if err != nil {
					return
				}
				source.Request(1)
				if err := m.Ack(b.Context()); err != nil {
					b.Errorf("acknowledge: %v", err)
				}
				if left.Add(-1) == 0 {
					cancel()
				}
			}
		})
	}
	work.Wait()
	return time.Since(begin)
}

// consumeByHand returns the time from the start of the consumer to the last acknowledgement.
func consumeByHand(b *testing.B, s *server, queue string, workers, n int) time.Duration {
	b.Helper()
	conn, err := amqp.Dial(s.url(s.direct()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	if err := ch.Qos(workers, 0, false); err != nil {
		b.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "hand", false, false, false, false, nil)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(n))
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for {
				select {
				case d := <-deliveries:
					if err := d.Ack(false); err != nil {
						b.Errorf("acknowledge: %v", err)
					}
					if left.Add(-1) == 0 {
						close(done)
					}
				case <-done:
					return
				}
			}
		})
	}
	work.Wait()
	return time.Since(begin)
}
