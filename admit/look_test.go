package admit_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/racetest"
	"github.com/weir-go/weir/limit"
)

// crowded returns a gate with everything that a look can show: calls that run and wait, in four
// classes and of many tenants, changes of the limit and refusals.
func crowded(t *testing.T, tenants int) *admit.Gate {
	t.Helper()
	n := tenants
	g := newGate(t, 1, admit.WithLimit(&law{initial: tenants, next: func(limit.Window) int { n ^= 1; return n }}),
		admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
	g.Inspect()
	for range 100 {
		closeWindow(t, g)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiters sync.WaitGroup
	permits := make([]admit.Permit, g.Limit())
	for i := range permits {
		p, err := g.Acquire(ctx, admit.Call{Method: "/a/Runs", Tenant: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		p.MoveTo(&permits[i])
	}
	for c := range 4 {
		for i := range 200 {
			waiters.Go(func() {
				_, _ = g.Acquire(ctx, admit.Call{Method: "/a/Waits", Tenant: fmt.Sprint(i), Class: admit.Class(c)})
			})
		}
	}
	for g.Stats().Queue < 800 {
		runtime.Gosched()
	}
	t.Cleanup(func() {
		cancel()
		waiters.Wait()
		for i := range permits {
			permits[i].Release(admit.Ignored)
		}
	})
	return g
}

// A look at a full gate takes the gate's lock for a small part of its time at once, so that no
// call waits for the whole look.
func TestALookLetsCallsPass(t *testing.T) {
	if racetest.Enabled || runtime.GOMAXPROCS(0) < 2 || runtime.NumCPU() < 2 {
		t.Skip("NOT CHECKED: the race detector is slow, and one processor does not run a look and a call at once")
	}
	g := crowded(t, 2000)
	const most = 0.5 // of a look. It is about 1 if the lock is held throughout, or more.
	part := 2 * most
	for range 3 { // another program may take a processor
		if part = min(part, waitDuringLooks(t, g)); part < most {
			return
		}
	}
	t.Errorf("a call during a look: got a wait for %.0f %% of the look, want less than %.0f %%", 100*part, 100*most)
}

// A look holds the lock for eight entries at most: between them a call gets it, whatever the look
// shows.
func TestALookRestsAfterEightEntries(t *testing.T) {
	g := crowded(t, 2000)
	rests := 0
	defer admit.OnRest(func() {
		rests++
		g.Name() // takes the lock
	})()
	i := g.Inspect()
	entries := []int{len(i.Running), len(i.Decisions), len(i.History), 1024} // the last ones are tenants
	for _, n := range i.Stats.Waiting {
		entries = append(entries, min(n, 100))
	}
	want := 0
	for _, n := range entries {
		want += max(0, n-1) / 8
	}
	if most := want + 2*admit.MaxClasses; rests < want || rests > most {
		t.Errorf("rests of a look at %v entries: got %d, want %d to %d", entries, rests, want, most)
	}
}

// waitDuringLooks looks at a gate many times. It returns the median of the longest wait of a call,
// as a part of the look, among the looks during which a call came.
func waitDuringLooks(t *testing.T, g *admit.Gate) float64 {
	t.Helper()
	var look atomic.Int64 // the number of the look that goes on, or 0
	longest := map[int64]time.Duration{}
	var calls sync.WaitGroup
	stop := make(chan struct{})
	calls.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, at := look.Load(), time.Now()
			g.Name() // takes the lock, as each call does during a look
			if n > 0 {
				longest[n] = max(longest[n], time.Since(at))
			}
		}
	})
	const looks, fewest = 400, 10
	lasted := make([]time.Duration, looks+1)
	for n := 1; n <= looks; n++ {
		look.Store(int64(n))
		at := time.Now()
		i := g.Inspect()
		lasted[n] = time.Since(at)
		look.Store(0)
		if len(i.Waiting) != 100 || len(i.Running) != 100 || len(i.Decisions) != 100 {
			t.Errorf("a look: got %d waiting, %d running and %d decisions, want 100 of each", len(i.Waiting), len(i.Running), len(i.Decisions))
		}
	}
	close(stop)
	calls.Wait()
	if len(longest) < fewest {
		t.Skipf("NOT CHECKED: a call came during %d of %d looks, want %d. The machine is busy", len(longest), looks, fewest)
	}
	var parts []float64
	for n, wait := range longest {
		parts = append(parts, float64(wait)/float64(lasted[n]))
	}
	slices.Sort(parts)
	return parts[len(parts)/2]
}

// A call costs little more while a gate with many calls is looked at: it takes the lock and is
// listed, and that does not depend on how many are listed.
func TestACallDuringLooksCostsLittleMore(t *testing.T) {
	if racetest.Enabled {
		t.Skip("NOT CHECKED: the race detector makes locks slow")
	}
	batch := func(looks bool) time.Duration { // the least time of a thousand calls
		g := newGate(t, 20_000)
		if looks {
			g.Inspect()
		}
		for _, p := range takeN(t, g, 10_000) {
			defer p.Release(admit.Ignored)
		}
		least := time.Hour
		for range 60 {
			if looks {
				g.Inspect()
			}
			at := time.Now()
			for range 1000 {
				p, err := g.Acquire(t.Context(), admit.Call{Method: "/a/B"})
				if err != nil {
					t.Fatal(err)
				}
				p.Release(admit.Success)
			}
			least = min(least, time.Since(at))
		}
		return least
	}
	const most = 5
	ratio := math.Inf(1)
	for range 3 {
		without, with := batch(false), batch(true)
		if ratio = min(ratio, float64(with)/float64(without)); ratio < most {
			return
		}
	}
	t.Errorf("a call while the gate is looked at: got %.1f times the cost of one while it is not, want less than %d", ratio, most)
}

// Looks at a gate whose calls come and go list each call once, the oldest first.
func TestLooksWhileCallsComeAndGo(t *testing.T) {
	g := newGate(t, 150, admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
	g.Inspect()
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for i := range 260 {
		calls.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if p, err := g.Acquire(ctx, admit.Call{Method: fmt.Sprint(i, " ", n), Class: admit.Class(i % 4)}); err == nil {
					runtime.Gosched()
					p.Release(admit.Success)
				}
			}
		})
	}
	looks := 100
	if racetest.Enabled {
		looks /= racetest.Slowdown
	}
	for range looks {
		i := g.Inspect()
		for what, list := range map[string][]admit.CallState{"running": i.Running, "waiting": i.Waiting} {
			seen := map[string]bool{}
			for n, c := range list {
				if seen[c.Method] || len(list) > 100 || n > 0 && c.Since.Before(list[n-1].Since) {
					t.Fatalf("%s: got %+v at %d of %d, want each call once, the oldest first, and 100 at most", what, c, n, len(list))
				}
				seen[c.Method] = true
			}
		}
	}
	cancel()
	calls.Wait()
	if i := g.Inspect(); len(i.Running)+len(i.Waiting)+i.Unlisted != 0 {
		t.Errorf("at rest: got %d running, %d waiting, %d not listed, want none", len(i.Running), len(i.Waiting), i.Unlisted)
	}
}

// Calls that begin during a look do not hide calls that are not listed.
func TestCallsThatBeginDuringALook(t *testing.T) {
	const early, listed = 30, 20
	g := newGate(t, 1000)
	for range early {
		defer take(t, g).Release(admit.Success)
	}
	g.Inspect()
	for range listed {
		defer take(t, g).Release(admit.Success)
	}
	rests := 0
	defer admit.OnRest(func() {
		rests++
		take(t, g) // is listed
	})()
	if i := g.Inspect(); rests < 2 || i.Unlisted != early {
		t.Errorf("calls began in %d rests: got %d not listed, want the %d that nobody saw begin", rests, i.Unlisted, early)
	}
}
