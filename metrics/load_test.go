package metrics_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// Scrapes and calls at once: no scrape fails, no counter falls, and in the end
// every call is counted once.
func TestScrapesWhileCallsRun(t *testing.T) {
	const callers, each, scrapers = 8, 500, 3
	var calls, scrapes sync.WaitGroup
	var once sync.Once
	full := make(chan struct{})
	g := newGate(t, admit.WithHooks(admit.Hooks{
		Refused: func(context.Context, admit.Call, admit.Reason, time.Duration) { once.Do(func() { close(full) }) },
	}))
	r := collect(t, g)
	first, second := acquire(t, g), acquire(t, g) // held until a call has been refused
	var over atomic.Bool
	for range scrapers {
		scrapes.Go(func() {
			for last := 0.0; !over.Load(); runtime.Gosched() {
				n := count(t, r, "weir_calls_total")
				if n < last {
					t.Errorf("weir_calls_total: got %v after %v, want it not to fall", n, last)
				}
				last = n
				count(t, r, "weir_wait_seconds")
			}
		})
	}
	for range callers {
		calls.Go(func() {
			for i := range each {
				call(t.Context(), g, i)
			}
		})
	}
	<-full
	first.Release(admit.Success)
	second.Release(admit.Success)
	calls.Wait()
	over.Store(true)
	scrapes.Wait()

	ran := count(t, r, "weir_calls_total")
	refused, left := count(t, r, "weir_refusals_total"), count(t, r, "weir_left_total")
	if got, want := ran+refused+left, float64(callers*each+2); got != want {
		t.Errorf("ran %v + refused %v + left %v: got %v, want %v", ran, refused, left, got, want)
	}
	if ran == 0 || refused == 0 || left == 0 {
		t.Errorf("got ran %v, refused %v, left %v, want some of each", ran, refused, left)
	}
	if got := count(t, r, "weir_panics_total"); got != 0 {
		t.Errorf("panics: got %v, want 0", got)
	}
}

// call makes a call as the i-th of its kind: some are over before they begin,
// some may not wait for long.
func call(ctx context.Context, g *admit.Gate, i int) {
	switch i % 10 {
	case 0:
		over, cancel := context.WithCancel(ctx)
		cancel()
		ctx = over
	case 1:
		soon, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(100))*time.Microsecond)
		defer cancel()
		ctx = soon
	}
	p, err := g.Acquire(ctx, admit.Call{Class: admit.Class(i % 4)})
	if err != nil {
		return
	}
	defer p.Release(admit.Outcome(i % 3))
	runtime.Gosched()
}

// hold returns a gate without a queue, with or without a collector, with n of
// its permits taken.
func hold(tb testing.TB, n int, collected bool) *admit.Gate {
	tb.Helper()
	g := newGate(tb, admit.WithoutQueue())
	if collected {
		collect(tb, g)
	}
	for range n {
		p, err := g.Acquire(context.Background(), admit.Call{})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { p.Release(admit.Ignored) })
	}
	return g
}

func admitted(g *admit.Gate) {
	p, err := g.Acquire(context.Background(), admit.Call{})
	if err == nil {
		p.Release(admit.Success)
	}
}

func TestWatchingACallAllocatesNothing(t *testing.T) {
	for name, taken := range map[string]int{"admitted": 0, "refused": 2} {
		g := hold(t, taken, true)
		if got := testing.AllocsPerRun(1000, func() { admitted(g) }); got != 0 {
			t.Errorf("%s: got %v allocations a call, want 0", name, got)
		}
	}
}

// What a collector costs a call: nothing if it is admitted, a hook if refused.
func BenchmarkCall(b *testing.B) {
	for _, kind := range []struct {
		name      string
		taken     int
		collected bool
	}{
		{"admitted/bare", 0, false},
		{"admitted/collected", 0, true},
		{"refused/bare", 2, false},
		{"refused/collected", 2, true},
	} {
		b.Run(kind.name, func(b *testing.B) {
			g := hold(b, kind.taken, kind.collected)
			b.ReportAllocs()
			for b.Loop() {
				admitted(g)
			}
		})
	}
}

// What a scrape of one gate costs.
func BenchmarkScrape(b *testing.B) {
	fixed, err := limit.NewFixed(100)
	if err != nil {
		b.Fatal(err)
	}
	r := collect(b, newGate(b, admit.WithLimit(fixed)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
