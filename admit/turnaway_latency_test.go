package admit_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// TurnAway decides as Acquire would: asking it first costs calls that are served no
// latency and the server no goodput, also where calls come in lumps.
func TestTurnAwayCostsNoLatency(t *testing.T) {
	for _, lump := range []time.Duration{200 * time.Microsecond, 3 * time.Millisecond, 10 * time.Millisecond} {
		served, p50, p99 := medians(t, lump, false)
		servedTap, p50Tap, p99Tap := medians(t, lump, true)
		if float64(servedTap) < 0.98*float64(served) || p50Tap > p50*11/10 || p99Tap > p99*11/10 {
			t.Errorf("lumps of %v: got %d served, p50 %v, p99 %v with TurnAway, want about %d, %v, %v as without",
				lump, servedTap, p50Tap, p99Tap, served, p50, p99)
		}
	}
}

// medians returns the medians of three runs, because the goroutines of a bubble run in another
// order each time.
func medians(t *testing.T, lump time.Duration, tap bool) (served int, p50, p99 time.Duration) {
	t.Helper()
	const runs = 3
	var all [runs]int
	var halves, tails [runs]time.Duration
	for i := range runs {
		all[i], halves[i], tails[i] = overloaded(t, lump, tap)
	}
	slices.Sort(all[:])
	slices.Sort(halves[:])
	slices.Sort(tails[:])
	return all[runs/2], halves[runs/2], tails[runs/2]
}

// overloaded asks eight workers of 5 ms for eight times what they can do, in lumps,
// and returns what became of the calls after the first second.
func overloaded(t *testing.T, lump time.Duration, tap bool) (served int, p50, p99 time.Duration) {
	t.Helper()
	var latencies []time.Duration
	synctest.Test(t, func(t *testing.T) {
		const rate, warm, length = 12800, time.Second, 3 * time.Second
		g, err := admit.New()
		if err != nil {
			t.Fatal(err)
		}
		workers := make(chan struct{}, 8)
		var mu sync.Mutex // guards latencies
		var calls sync.WaitGroup
		call := func(due time.Time, counts bool) {
			ctx, cancel := context.WithDeadline(t.Context(), due.Add(100*time.Millisecond))
			defer cancel()
			p, err := g.Acquire(ctx, admit.Call{})
			if err != nil {
				return
			}
			defer p.Release(admit.Success)
			workers <- struct{}{}
			time.Sleep(5 * time.Millisecond)
			<-workers
			mu.Lock()
			defer mu.Unlock()
			if counts {
				latencies = append(latencies, time.Since(due))
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		start, due := time.Now(), time.Duration(0)
		for at := time.Duration(0); at < length; at += lump {
			time.Sleep(time.Until(start.Add(at)))
			for ; due < at; due += time.Duration(random.ExpFloat64() / rate * float64(time.Second)) {
				if tap && gateFuncs.Full(g) {
					if _, away := gateFuncs.TurnAway(context.Background(), g, admit.Call{}); away {
						continue
					}
				}
				meant := start.Add(due)
				calls.Go(func() { call(meant, at > warm) })
				synctest.Wait()
			}
		}
		calls.Wait()
	})
	slices.Sort(latencies)
	return len(latencies), latencies[len(latencies)/2], latencies[len(latencies)*99/100]
}
