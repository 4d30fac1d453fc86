package redis_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker/redis"
)

// BenchmarkThroughput consumes messages with 64 workers, with weir and with the client used
// by hand, in turns. It reports the medians of five rounds and their ratio.
func BenchmarkThroughput(b *testing.B) {
	const messages, rounds = 3000, 5
	s := startServer(b, "--appendonly", "no")
	consume := map[string]func(context.Context, string, func() bool){
		"weir": s.consumeWithWeir, "by-hand": s.consumeByHand,
	}
	for b.Loop() {
		times := map[string][]time.Duration{}
		for round := range rounds {
			for name, run := range consume {
				stream := name + "-" + itoa(round)
				s.fill(b, stream, messages)
				var left atomic.Int64
				left.Store(messages)
				ctx, cancel := context.WithCancel(b.Context())
				began := time.Now()
				run(ctx, stream, func() bool {
					last := left.Add(-1) == 0
					if last {
						times[name] = append(times[name], time.Since(began))
						cancel()
					}
					return last
				})
				cancel()
				wantPending(b, s, stream)
				do(b, s.client.Del(b.Context(), stream).Err())
			}
		}
		rate := func(name string) float64 {
			slices.Sort(times[name])
			return messages / times[name][rounds/2].Seconds()
		}
		b.ReportMetric(rate("weir"), "weir-messages/s")
		b.ReportMetric(rate("by-hand"), "by-hand-messages/s")
		b.ReportMetric(rate("weir")/rate("by-hand"), "ratio")
	}
}

func (s *server) fill(t testing.TB, stream string, n int) {
	t.Helper()
	do(t, s.client.XGroupCreateMkStream(t.Context(), stream, group, "0").Err())
	_, err := s.client.Pipelined(t.Context(), func(p goredis.Pipeliner) error {
		for range n {
			p.XAdd(t.Context(), &goredis.XAddArgs{Stream: stream, Values: []string{"body", "0123456789"}})
		}
		return nil
	})
	do(t, err)
}

func (s *server) consumeWithWeir(ctx context.Context, stream string, done func() bool) {
	c := config(s.addr, stream)
	source, err := redis.Open(c)
	if err != nil {
		slog.Error("open", "err", err)
		return
	}
	source.Request(64)
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			for {
				m, err := source.Next(ctx)
				if err != nil {
					return
				}
				if err := m.Ack(context.WithoutCancel(ctx)); err != nil {
					slog.Error("ack", "err", err)
				}
				source.Request(1)
				done()
			}
		})
	}
	work.Wait()
	_ = source.Close(context.WithoutCancel(ctx))
}

func (s *server) consumeByHand(ctx context.Context, stream string, done func() bool) {
	client := goredis.NewClient(&goredis.Options{Addr: s.addr, PoolSize: 65})
	defer client.Close()
	free := make(chan struct{}, 64) // holds the demand
	for range 64 {
		free <- struct{}{}
	}
	var work sync.WaitGroup
	for ctx.Err() == nil {
		<-free
		demand := 1
		for len(free) > 0 {
			<-free
			demand++
		}
		read, err := client.XReadGroup(context.WithoutCancel(ctx), &goredis.XReadGroupArgs{
			Group: group, Consumer: "by-hand", Streams: []string{stream, ">"}, Count: int64(demand), Block: 100 * time.Millisecond,
		}).Result()
		if err == nil {
			for _, m := range read[0].Messages {
				demand--
				work.Go(func() {
					if err := client.XAck(context.WithoutCancel(ctx), stream, group, m.ID).Err(); err != nil {
						slog.Error("ack", "err", err)
					}
					free <- struct{}{}
					done()
				})
			}
		}
		for range demand {
			free <- struct{}{}
		}
	}
	work.Wait()
}
