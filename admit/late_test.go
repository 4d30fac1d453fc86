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
)

// serveAll sends calls to a gate, pause apart, and returns how many were served in time.
func serveAll(t *testing.T, g *admit.Gate, calls int, pause, patience time.Duration, takes func(n int) time.Duration) int {
	t.Helper()
	var inTime atomic.Int64
	var callers sync.WaitGroup
	for n := range calls {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			p, err := g.Acquire(ctx, admit.Call{})
			if err != nil {
				return
			}
			time.Sleep(takes(n))
			p.Release(admit.Success)
			if ctx.Err() == nil {
				inTime.Add(1)
			}
		})
		if pause > 0 {
			time.Sleep(pause)
		}
	}
	callers.Wait()
	return int(inTime.Load())
}

// Slightly too many calls for one permit make the queue grow until each call gets its permit
// just before its deadline. The shortest call, of 1 ms, gives no reason to refuse it, and all
// others take 12 ms.
func TestAQueueServesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 5000
		g := newGate(t, 1)
		got := serveAll(t, g, calls, 11500*time.Microsecond, 100*ms, func(n int) time.Duration {
			if n%50 == 0 {
				return ms
			}
			return 12 * ms
		})
		if got < calls*9/10 {
			t.Errorf("served in time: got %d of %d calls, want 9 in 10", got, calls)
		}
	})
}

// The last calls of a burst may end late. The next burst is served all the same, although the
// calls of the lowest class wait for longer than they have left.
func TestLateCallsOfTheLastBurst(t *testing.T) {
	for _, tt := range []struct {
		limit, burst int
		deadline     time.Duration
	}{{20, 360, 160 * ms}, {100, 1800, 160 * ms}, {40, 900, 200 * ms}} {
		if slowdown > 1 && tt.limit > 20 {
			break // one row is enough for the race detector
		}
		got, _ := world{gate: limited(tt.limit), lasts: 12 * time.Second, streams: []stream{{
			rate: float64(tt.burst) / 0.5, burst: tt.burst, deadline: tt.deadline, lasts: exponential(8 * ms),
			each: func(r *rand.Rand) admit.Call { return admit.Call{Class: admit.Class(r.IntN(4))} },
		}}}.run(t)
		if c := got[0]; c.share() < 0.985 {
			t.Errorf("bursts of %d: got %.4f served, want at least 0.985; refused %v, left %d", tt.burst, c.share(), c.refused, c.left)
		}
	}
}

// A burst is served to its end, although its last calls wait for longer than they have left.
func TestABurstHasNoLateCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 90
		g := newGate(t, 1)
		for range 3 {
			got := serveAll(t, g, calls, 0, 950*ms, func(int) time.Duration { return 10 * ms })
			if got != calls {
				t.Errorf("served in time: got %d of a burst of %d calls, want all", got, calls)
			}
		}
	})
}
