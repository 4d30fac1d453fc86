package admit_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/racetest"
)

// A server of a size that one can afford to simulate for an hour: two workers, 50 ms a
// call, and slower for every call that it holds beyond them, so that it collapses if
// everybody is let in.
const (
	workers  = 2
	service  = 50 * ms
	slowing  = 0.05
	patience = time.Second // of the callers
)

// An hour with four times what a server can do, through a gate as New makes it: in the
// end the heap and the goroutines are what they were after the first minutes, and every
// call is accounted for.
func TestAnHourOfOverload(t *testing.T) {
	if racetest.Enabled {
		t.Skip("the law is the same under the race detector, and other tests show races")
	}
	t.Cleanup(admit.IgnoreScheduler())
	const rate = 4 * workers * float64(time.Second/service) // calls a second
	synctest.Test(t, func(t *testing.T) {
		g, err := admit.New()
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		calls := 0
		overload := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
				calls++
				class := admit.Class(calls % 4)
				go simulate(t.Context(), g, class, time.Duration(random.ExpFloat64()*float64(service)))
			}
			time.Sleep(time.Minute) // all have ended or given up
			synctest.Wait()
		}
		overload(5 * time.Minute / slowdown)
		before := settled()
		heap, stacks := memory()
		overload(time.Hour / slowdown)
		if got := goroutines(before); got > before {
			t.Errorf("goroutines: got %d, want %d as before", got, before)
		}
		// The runtime keeps 0.4 to 1.2 MiB of spans for stacks, as they happen to be split.
		heapAfter, stacksAfter := memory()
		if heapAfter > heap+512<<10 || stacksAfter > stacks+2<<20 {
			t.Errorf("after the hour: got heap %d and stacks %d, want about %d and %d as before", heapAfter, stacksAfter, heap, stacks)
		}
		s := g.Stats()
		if accounted(s) != calls || s.InFlight != 0 || s.Queue != 0 {
			t.Errorf("got %d accounted for, %d in flight, %d waiting, want %d, 0, 0", accounted(s), s.InFlight, s.Queue, calls)
		}
		// The server can do a quarter. Handlers end here at their callers' deadline, which
		// hides from the limit how long calls would take.
		if got := float64(s.Ended[admit.Success]) / float64(calls); got < 0.2 || got > 0.3 {
			t.Errorf("succeeded: got %.3f of %d calls, want about a quarter", got, calls)
		}
		t.Logf("%d calls, %d succeeded, %d failed, %d left, refused %v, limit %d",
			calls, s.Ended[admit.Success], s.Ended[admit.Overload], s.Left, s.Refused, s.Limit)
		wantWhole(t, g, s.Limit)
	})
}

// A gate as New makes it, before a server with eight workers, exponential service times of
// 5 ms and 1 % more for each call that waits inside, at four times what it can do: callers
// give up after 100 ms, and what ends in time is nearly all that the server can do. The
// goroutines of a bubble run in another order each time: 80 runs gave 0.971 with a standard
// deviation of 0.008, and 0.938 at worst, so the bound is on the mean of several.
func TestDefaultsKeepTheGoodput(t *testing.T) {
	t.Cleanup(admit.IgnoreScheduler())
	const seeds, want = 4, 0.95
	sum := 0.0
	for seed := range uint64(seeds) {
		sum += goodput(t, seed)
	}
	if got := sum / seeds; got < want {
		t.Errorf("goodput at four times the load, mean of %d runs: got %.3f of capacity, want at least %v", seeds, got, want)
	}
}

// goodput returns which share of a server's capacity ends in time at four times its load.
func goodput(t *testing.T, seed uint64) float64 {
	t.Helper()
	return 4 * compete(t, seed, nil, flow{load: 4})[0]
}

// A flow is callers whose calls are alike and come at random.
type flow struct {
	load float64 // as a multiple of what the server can do
	call func(random *rand.Rand) admit.Call
}

// compete has flows compete for a server behind a gate, as New makes it but for the options.
// It returns which share of each flow's calls ended in time.
func compete(t *testing.T, seed uint64, opts []admit.Option, flows ...flow) (shares []float64) {
	t.Helper()
	const (
		workers, service = 8, 5 * ms
		capacity         = workers * float64(time.Second/service)
		warmUp, measured = 2 * time.Second, 8 * time.Second
	)
	synctest.Test(t, func(t *testing.T) {
		g, err := admit.New(opts...)
		if err != nil {
			t.Fatal(err)
		}
		server := &pool{workers: make(chan struct{}, workers)}
		begin := time.Now()
		calls, good := make([]int, len(flows)), make([]atomic.Int64, len(flows))
		var callers sync.WaitGroup
		for i, f := range flows {
			random := rand.New(rand.NewPCG(seed, uint64(7+i)))
			callers.Go(func() {
				for time.Since(begin) < warmUp+measured {
					time.Sleep(time.Duration(random.ExpFloat64() / (f.load * capacity) * float64(time.Second)))
					work, c := time.Duration(random.ExpFloat64()*float64(service)), admit.Call{}
					if f.call != nil {
						c = f.call(random)
					}
					counts := time.Since(begin) > warmUp && time.Since(begin) <= warmUp+measured
					if counts {
						calls[i]++
					}
					go func() {
						if server.call(t.Context(), g, c, work) && counts {
							good[i].Add(1)
						}
					}()
				}
			})
		}
		callers.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range flows {
			shares = append(shares, float64(good[i].Load())/float64(calls[i]))
		}
		s := g.Stats()
		t.Logf("seed %d: in time %.3f, limit %d, refused %v", seed, shares, s.Limit, s.Refused)
		if s.InFlight != 0 || s.Queue != 0 || s.Tenants != 0 || s.Held != [admit.MaxClasses]int{} {
			t.Errorf("at rest: got %+v, want nothing held and nobody known", s)
		}
	})
	return shares
}

// A pool is a server whose workers are few, and slower the more calls wait for them.
type pool struct {
	workers chan struct{}
	waiting atomic.Int64
}

// call makes a call through g and reports whether it succeeded within 100 ms.
func (s *pool) call(ctx context.Context, g *admit.Gate, c admit.Call, work time.Duration) bool {
	return s.callAfter(ctx, g, c, work, nil)
}

// callAfter makes a call that does something first, unless that is nil.
func (s *pool) callAfter(ctx context.Context, g *admit.Gate, c admit.Call, work time.Duration, first func(context.Context) (admit.Outcome, bool)) bool {
	ctx, cancel := context.WithTimeout(ctx, 100*ms)
	defer cancel()
	permit, err := g.Acquire(ctx, c)
	if err != nil {
		return false
	}
	outcome := admit.Overload
	defer func() { permit.Release(outcome) }()
	if first != nil {
		o, goesOn := first(ctx)
		if outcome = o; !goesOn {
			return false
		}
		outcome = admit.Overload
	}
	s.waiting.Add(1)
	s.workers <- struct{}{} // who has come this far takes a worker's time, in time or not
	slow := 1 + 0.01*float64(s.waiting.Add(-1))
	time.Sleep(time.Duration(float64(work) * slow))
	<-s.workers
	if ctx.Err() != nil {
		return false
	}
	outcome = admit.Success
	return true
}

// simulate makes a call whose caller has patience.
func simulate(ctx context.Context, g *admit.Gate, c admit.Class, work time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	permit, err := g.Acquire(ctx, admit.Call{Class: c})
	if err != nil {
		return
	}
	outcome := admit.Overload
	defer func() { permit.Release(outcome) }()
	// What each gets of two workers that n share, and what sharing costs.
	n := float64(g.Stats().InFlight)
	share := max(1, n/workers) * (1 + slowing*max(0, n-workers))
	select {
	case <-time.After(time.Duration(float64(work) * share)):
		outcome = admit.Success
	case <-ctx.Done():
	}
}
