package admit_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/weir-go/weir/admit"
)

// The memory of a gate is B/op. The memory of a waiter, without the stack of its goroutine, is
// B/waiter.
func BenchmarkFootprint(b *testing.B) {
	b.Run("gate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := admit.New(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("waiter", func(b *testing.B) {
		const waiters = 4000
		for b.Loop() {
			g, err := admit.New(admit.WithFixedLimit(1), admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
			if err != nil {
				b.Fatal(err)
			}
			p, err := g.Acquire(b.Context(), admit.Call{})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			before := heapInUse()
			done := make(chan struct{}, waiters)
			for range waiters {
				go func() {
					_, _ = g.Acquire(ctx, admit.Call{}) // it ends with its context
					done <- struct{}{}
				}()
			}
			for g.Stats().Queue < waiters {
				runtime.Gosched()
			}
			b.ReportMetric(float64(heapInUse()-before)/waiters, "B/waiter")
			cancel()
			for range waiters {
				<-done
			}
			p.Release(admit.Ignored)
		}
	})
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
