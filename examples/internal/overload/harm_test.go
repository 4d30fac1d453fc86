package overload_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/interceptors"
)

// sleepKey is the metadata key for how long the handler sleeps.
const sleepKey = "x-sleep-ms"

// sleep is a handler that needs nothing that is scarce.
func sleep(ctx context.Context) {
	ms, _ := strconv.ParseFloat(metadata.ValueFromIncomingContext(ctx, sleepKey)[0], 64)
	time.Sleep(time.Duration(ms * float64(time.Millisecond)))
}

func sleeping(ctx context.Context, d time.Duration) context.Context {
	return metadata.AppendToOutgoingContext(ctx, sleepKey, fmt.Sprint(float64(d)/float64(time.Millisecond)))
}

// rare is a share of long calls among calls of 5 ms.
func rare(share float64, long time.Duration) func() time.Duration {
	return func() time.Duration {
		if rand.Float64() < share {
			return long
		}
		return 5 * time.Millisecond
	}
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// BenchmarkHarm counts, over real gRPC, the calls that a server loses although it can serve
// them all. Nothing should be refused. "late" also counts what a busy machine holds up.
func BenchmarkHarm(b *testing.B) {
	const short = 5 * time.Millisecond
	for _, c := range []struct {
		name   string
		rate   float64
		takes  func() time.Duration
		before func() time.Duration // of 1,000 calls a second that come first; nil: none
		steady int                  // callers that make calls of 5 s besides, one after the other
	}{
		{"fresh, 200/s of 10 ms", 200, always(2 * short), nil, 0},
		{"fresh, 1000/s of 10 ms", 1000, always(2 * short), nil, 0},
		{"1000/s of 5 ms, 1 % of 300 ms", 1000, rare(.01, 300*time.Millisecond), nil, 0},
		{"1000/s of 5 ms, 0.5 % of 2 s", 1000, rare(.005, 2*time.Second), nil, 0},
		{"50/s of 5 ms, 1 % of 3 s", 50, rare(.01, 3*time.Second), nil, 0},
		{"200/s of 5 ms beside four callers of 5 s", 200, always(short), nil, 4},
		{"400/s of 5 ms after a mix", 400, always(short), rare(.01, 300*time.Millisecond), 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				server := serve(b, sleep, newGate(b))
				load := func(rate float64, takes func() time.Duration) *overload.Load {
					l := &overload.Load{Rate: rate, Patience: 10 * time.Second, Seed: seed()}
					l.Call = func(ctx context.Context) error { return server.Call(sleeping(ctx, takes()), l.Arrived.Load()) }
					return l
				}
				ctx, cancel := context.WithCancel(b.Context())
				var steady sync.WaitGroup
				for range c.steady {
					steady.Go(func() {
						for ctx.Err() == nil {
							_ = server.Call(sleeping(ctx, 5*time.Second), 0)
						}
					})
				}
				if c.before != nil {
					load(1000, c.before).Run(b.Context(), seconds())
				}
				l := load(c.rate, c.takes)
				l.Run(b.Context(), seconds())
				cancel()
				steady.Wait()
				reportHarm(b, l.Between(0, seconds()))
			}
		})
	}
	for _, load := range []float64{0.3, 0.5, 0.7, 0.9} {
		b.Run(fmt.Sprintf("8 workers, exponential 5 ms, cold, at %g", load), func(b *testing.B) {
			for range b.N {
				service := overload.NewService(overload.Config{Workers: 8, Mean: short, Seed: seed()})
				server := serve(b, service.Serve, newGate(b))
				l := &overload.Load{Rate: load * service.Capacity(), Patience: 100 * time.Millisecond, Seed: seed()}
				l.Call = func(ctx context.Context) error { return server.Call(ctx, l.Arrived.Load()) }
				l.Run(b.Context(), seconds())
				reportHarm(b, l.Between(0, seconds()))
				service.Close()
			}
		})
	}
}

func reportHarm(b *testing.B, r overload.Result) {
	b.Helper()
	b.ReportMetric(float64(r.Offered), "calls")
	b.ReportMetric(float64(r.Refused), "refused")
	b.ReportMetric(float64(r.Offered-r.Good-r.Refused), "late")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBurst sends 300 calls at once every second to eight workers of 5 ms, which is
// 0.19 of their capacity. The callers give up after 900 ms.
func BenchmarkBurst(b *testing.B) {
	const burst, patience = 300, 900 * time.Millisecond
	for range b.N {
		service := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Shape: overload.Constant})
		server := serve(b, service.Serve, newGate(b))
		var served atomic.Int64
		bursts := max(1, int(seconds()/time.Second))
		for range bursts {
			began := time.Now()
			var calls sync.WaitGroup
			for i := range int64(burst) {
				calls.Go(func() {
					ctx, cancel := context.WithDeadline(b.Context(), began.Add(patience))
					defer cancel()
					if server.Call(ctx, i) == nil {
						served.Add(1)
					}
				})
			}
			calls.Wait()
			time.Sleep(time.Until(began.Add(time.Second)))
		}
		b.ReportMetric(float64(served.Load())/float64(burst*bursts), "served")
		b.ReportMetric(0, "ns/op")
		service.Close()
	}
}

// BenchmarkSurge has critical calls at 0.4 of the capacity of eight workers of 20 ms. In the
// middle third, sheddable calls at 12 times the capacity come besides.
func BenchmarkSurge(b *testing.B) {
	class := interceptors.WithClassifier(func(ctx context.Context, _ middleware.CallMeta) admit.Class {
		if len(metadata.ValueFromIncomingContext(ctx, "x-surge")) > 0 {
			return admit.Sheddable
		}
		return admit.Critical
	})
	for range b.N {
		service := overload.NewService(overload.Config{Workers: 8, Mean: 20 * time.Millisecond, Seed: seed()})
		server := serve(b, service.Serve, newGate(b), class)
		third := max(seconds(), 500*time.Millisecond)
		load := func(of float64, keys ...string) *overload.Load {
			l := &overload.Load{Rate: of * service.Capacity(), Patience: 500 * time.Millisecond, Seed: seed()}
			l.Call = func(ctx context.Context) error {
				return server.Call(metadata.AppendToOutgoingContext(ctx, keys...), l.Arrived.Load())
			}
			return l
		}
		critical, surge := load(0.4), load(12, "x-surge", "1")
		var all sync.WaitGroup
		all.Go(func() { critical.Run(b.Context(), 3*third) })
		time.Sleep(third)
		surge.Run(b.Context(), third)
		all.Wait()
		for i, name := range []string{"before", "during", "after"} {
			r := critical.Between(time.Duration(i)*third, time.Duration(i+1)*third)
			b.ReportMetric(float64(r.Good)/float64(r.Offered), "critical-"+name)
		}
		during := critical.Between(third, 2*third).Goodput() + surge.Between(0, third).Goodput()
		b.ReportMetric(during/service.Capacity(), "goodput/capacity")
		b.ReportMetric(0, "ns/op")
		service.Close()
	}
}

// BenchmarkMetastable is the failure of Huang et al., "Metastable Failures in the Wild" (OSDI
// 2022), at a small scale: 1,300 calls a second to eight workers of 5 ms, an
// attempt ends after 300 ms, and callers try four times more at once. In the middle third
// there are only three workers. back-s is how long after it 99 % of the calls are served.
func BenchmarkMetastable(b *testing.B) {
	for _, name := range []string{"weir", "none"} {
		b.Run("gate="+name, func(b *testing.B) {
			for range b.N {
				service := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Seed: seed()})
				gate := newGate(b)
				if name == "none" {
					gate = nil
				}
				server := serve(b, service.Serve, gate)
				third := max(2*seconds(), 2*time.Second)
				l := &overload.Load{Rate: 1300, Patience: 1600 * time.Millisecond, Seed: seed()}
				l.Call = func(ctx context.Context) error {
					return insist(ctx, func(ctx context.Context) error { return server.Call(ctx, l.Arrived.Load()) })
				}
				time.AfterFunc(third, func() { service.SetWorkers(3) })
				time.AfterFunc(2*third, func() { service.SetWorkers(8) })
				l.Run(b.Context(), 3*third)
				before := l.Between(0, third)
				b.ReportMetric(100*(1-float64(before.Good)/float64(before.Offered)), "lost-before-%")
				b.ReportMetric(backAfter(l, 2*third, 3*third).Seconds(), "back-s")
				b.ReportMetric(0, "ns/op")
				service.Close()
			}
		})
	}
}

// insist makes up to five attempts, one as soon as the one before has failed.
func insist(ctx context.Context, call func(context.Context) error) (err error) {
	for range 5 {
		attempt, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		err = call(attempt)
		cancel()
		if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
			return err
		}
	}
	return err
}

// backAfter returns how long after from at least 99 % of the calls of half a second were
// served.
func backAfter(l *overload.Load, from, to time.Duration) time.Duration {
	const span, stride = 500 * time.Millisecond, 100 * time.Millisecond
	for at := from; at+span <= to; at += stride {
		if r := l.Between(at, at+span); float64(r.Good) >= 0.99*float64(r.Offered) {
			return at - from
		}
	}
	return to - from
}
