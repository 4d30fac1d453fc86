package admit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

func acquireRelease(b *testing.B, g *admit.Gate) {
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if p, err := g.Acquire(ctx, admit.Call{}); err == nil {
			p.Release(admit.Success)
		}
	}
}

func acquireReleaseParallel(b *testing.B, g *admit.Gate) {
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if p, err := g.Acquire(ctx, admit.Call{}); err == nil {
				p.Release(admit.Success)
			}
		}
	})
}

// BenchmarkAdmitted: a permit is free. Adaptive is the default.
func BenchmarkAdmitted(b *testing.B) {
	b.Run("adaptive/serial", func(b *testing.B) { acquireRelease(b, adaptive(b)) })
	b.Run("adaptive/parallel", func(b *testing.B) { acquireReleaseParallel(b, adaptive(b)) })
	b.Run("fixed/serial", func(b *testing.B) { acquireRelease(b, newGate(b, 1000)) })
	b.Run("fixed/parallel", func(b *testing.B) { acquireReleaseParallel(b, newGate(b, 1000)) })
	b.Run("hooks/parallel", func(b *testing.B) {
		acquireReleaseParallel(b, newGate(b, 1000, admit.WithHooks(admit.Hooks{LimitChanged: func(int, int) {}})))
	})
	b.Run("dry run/parallel", func(b *testing.B) { acquireReleaseParallel(b, newGate(b, 1000, admit.WithDryRun(true))) })
}

// BenchmarkTenants: what it costs that classes have shares and calls have tenants, however many.
func BenchmarkTenants(b *testing.B) {
	for _, tenants := range []int{1, 1000, 100_000} {
		names := make([]string, tenants)
		for i := range names {
			names[i] = "tenant-" + strconv.Itoa(i)
		}
		calls := func() func() admit.Call {
			i := rand.IntN(tenants)
			return func() admit.Call {
				i++
				return admit.Call{Class: admit.Class(i % 4), Tenant: names[i%tenants]}
			}
		}
		gate := func(b *testing.B) *admit.Gate {
			g := adaptive(b)
			update(b, g, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5}))
			return g
		}
		b.Run(fmt.Sprintf("%d/serial", tenants), func(b *testing.B) {
			g, next, ctx := gate(b), calls(), context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if p, err := g.Acquire(ctx, next()); err == nil {
					p.Release(admit.Success)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/parallel", tenants), func(b *testing.B) {
			g, ctx := gate(b), context.Background()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for next := calls(); pb.Next(); {
					if p, err := g.Acquire(ctx, next()); err == nil {
						p.Release(admit.Success)
					}
				}
			})
		})
	}
}

// adaptive returns a gate as New makes it, but with a limit that is never reached.
func adaptive(b *testing.B) *admit.Gate {
	a, err := limit.NewAdaptive(limit.AdaptiveConfig{Initial: 1000, Min: 500})
	if err != nil {
		b.Fatal(err)
	}
	return newGate(b, 1, admit.WithLimit(a))
}

// BenchmarkRefused: no permit is free and there is no room to wait.
func BenchmarkRefused(b *testing.B) {
	b.Run("no queue/serial", func(b *testing.B) { acquireRelease(b, busy(b, admit.WithoutQueue())) })
	b.Run("no queue/parallel", func(b *testing.B) { acquireReleaseParallel(b, busy(b, admit.WithoutQueue())) })
	full := queue(1, admit.Reject)
	b.Run("full/serial", func(b *testing.B) { acquireRelease(b, busy(b, full)) })
	b.Run("full/parallel", func(b *testing.B) { acquireReleaseParallel(b, busy(b, full)) })
	b.Run("draining/parallel", func(b *testing.B) {
		g := newGate(b, 1)
		g.Drain()
		acquireReleaseParallel(b, g)
	})
}

// busy returns a gate whose only permit is taken and, if it has a queue of one place,
// where somebody waits.
func busy(b *testing.B, opt admit.Option) *admit.Gate {
	g := newGate(b, 1, opt)
	p := take(b, g)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	if places := g.Stats().QueueCapacity; places > 0 {
		update(b, g, admit.WithQueue(admit.QueueConfig{Capacity: places, Policy: admit.Reject, MaxWait: 1 << 62}))
		go func() { defer close(done); _, _ = g.Acquire(ctx, admit.Call{Class: admit.Critical}) }()
		for g.Stats().Queue < places {
			runtime.Gosched()
		}
	} else {
		close(done)
	}
	b.Cleanup(func() {
		cancel()
		<-done
		p.Release(admit.Ignored)
	})
	return g
}

// BenchmarkFull asks Full of a gate with nothing and with everything to say.
func BenchmarkFull(b *testing.B) {
	ask := func(g *admit.Gate) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				gateFuncs.Full(g)
			}
		}
	}
	b.Run("free", ask(newGate(b, 1)))
	b.Run("full", ask(busy(b, admit.WithoutQueue())))
}

// contended runs n goroutines a core, each of which holds its permit until others had
// a chance to come and wait for it.
func contended(b *testing.B, g *admit.Gate, n int) {
	ctx := context.Background()
	b.SetParallelism(n)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if p, err := g.Acquire(ctx, admit.Call{}); err == nil {
				runtime.Gosched()
				p.Release(admit.Success)
			}
		}
	})
	s := g.Stats()
	b.ReportMetric(float64(s.Waited)/float64(b.N), "waited/op")
	b.ReportMetric(float64(s.Refused[admit.Default][admit.Evicted])/float64(b.N), "evicted/op")
}

// BenchmarkQueued: nearly every call waits, and is handed its permit by another.
func BenchmarkQueued(b *testing.B) {
	contended(b, newGate(b, 1, queue(1000, admit.Block)), 8)
}

// BenchmarkEvicted: newcomers take the places of the oldest in a short queue.
func BenchmarkEvicted(b *testing.B) {
	contended(b, newGate(b, 1, queue(8, admit.Reject)), 64)
}

// BenchmarkStats is what a scrape costs.
func BenchmarkStats(b *testing.B) {
	g := newGate(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		g.Stats()
	}
}
