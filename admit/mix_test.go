package admit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/racetest"
)

// A kind is a kind of calls in a mix.
type kind struct {
	rate      float64 // a second
	mean      float64 // of the time that a call takes, in seconds
	spread    int     // 0 for none, 1 for exponential, 2 for lognormal
	onWorkers bool    // else nothing is scarce
}

func (k kind) String() string {
	return fmt.Sprintf("%.0f/s of %.1f ms, spread %d, on workers %v", k.rate, k.mean*1e3, k.spread, k.onWorkers)
}

func (k kind) lasts(r *rand.Rand) time.Duration {
	took := k.mean
	switch k.spread {
	case 1:
		took *= r.ExpFloat64()
	case 2:
		took *= math.Exp(0.8*r.NormFloat64() - 0.8*0.8/2)
	}
	return time.Duration(took * float64(time.Second))
}

// someKinds returns one to three kinds that a server can serve: so many workers, if there are
// any, are at most 0.85 in use, and up to 26 calls are in flight that need none.
func someKinds(r *rand.Rand, workers int, load float64) []kind {
	kinds := make([]kind, 1+r.IntN(3))
	for i := range kinds {
		k := kind{mean: 0.001 * math.Pow(500, r.Float64()), spread: r.IntN(3), onWorkers: workers > 0 && r.IntN(4) > 0}
		inFlight := 1 + 25*r.Float64()
		if k.onWorkers {
			k.mean, inFlight = min(k.mean, 0.1), load*float64(workers)
		}
		k.rate = min(inFlight/k.mean/float64(len(kinds)), 4000)
		kinds[i] = k
	}
	return kinds
}

// The calls of a server change every few seconds: how many come, how long they take, how widely
// that differs, and whether they need one of few workers. While the server can serve them, none
// is refused and none ends late.
func TestChangesOfTheMix(t *testing.T) {
	t.Cleanup(admit.IgnoreScheduler())
	if racetest.Enabled {
		t.Skip("the law is the same under the race detector, and other tests show races")
	}
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) { changesOfTheMix(t, seed) })
	}
}

func changesOfTheMix(t *testing.T, seed uint64) {
	t.Helper()
	g, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 77))
	var workers chan struct{}
	if r.IntN(2) == 0 {
		workers = make(chan struct{}, 4<<r.IntN(4))
	}
	load := 0.3 + 0.55*r.Float64()
	for range 5 {
		kinds := someKinds(r, cap(workers), load)
		lasts := time.Duration(3+r.IntN(6)) * time.Second
		var asked, refused, late atomic.Int64
		call := func(k kind, work time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(max(1, 20*k.mean)*float64(time.Second)))
			defer cancel()
			permit, err := g.Acquire(ctx, admit.Call{})
			if err != nil {
				refused.Add(1)
				return
			}
			if k.onWorkers {
				workers <- struct{}{}
				defer func() { <-workers }()
			}
			time.Sleep(work)
			outcome := admit.Success
			if ctx.Err() != nil {
				outcome = admit.Overload
				late.Add(1)
			}
			permit.Release(outcome)
		}
		for _, k := range kinds {
			r := rand.New(rand.NewPCG(r.Uint64(), 1))
			go func() {
				for end := time.Now().Add(lasts); time.Now().Before(end); asked.Add(1) {
					time.Sleep(time.Duration(r.ExpFloat64() / k.rate * float64(time.Second)))
					go call(k, k.lasts(r))
				}
			}()
		}
		time.Sleep(lasts)
		if refused.Load() > 0 || late.Load() > 0 {
			t.Errorf("seed %d, %d workers, %v: got %d of %d calls refused and %d late, want none",
				seed, cap(workers), kinds, refused.Load(), asked.Load(), late.Load())
		}
	}
	time.Sleep(time.Minute) // until all have ended
}
