package admit_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

func TestDrain(t *testing.T) {
	for _, policy := range []admit.Policy{admit.Reject, admit.Block} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 2, queue(8, policy))
			permits := takeN(t, g, 2)
			var calls []*call
			for i := range 8 {
				calls = append(calls, start(t.Context(), g, admit.Class(i%4)))
			}
			time.Sleep(30 * ms)
			g.Drain()
			synctest.Wait()
			for i, a := range calls {
				wantState(t, fmt.Sprintf("policy %v: waiter %d", policy, i), a, draining)
				if a.took != 30*ms {
					t.Errorf("waiter %d: got an answer after %v, want it at once, after 30ms", i, a.took)
				}
			}
			refused(t, g, admit.Critical, admit.Draining)
			if s := g.Stats(); !s.Draining || s.InFlight != 2 || s.Queue != 0 {
				t.Errorf("got draining %v, %d in flight, %d waiting, want true, 2, 0", s.Draining, s.InFlight, s.Queue)
			}
			permits[0].Release(admit.Success)
			refused(t, g, admit.Critical, admit.Draining) // though a permit is free
			g.Drain()
			permits[1].Release(admit.Overload)
			s := g.Stats()
			if s.InFlight != 0 || s.Ended != [3]uint64{admit.Success: 1, admit.Overload: 1} {
				t.Errorf("those that ran: got %d in flight, ended %v, want none, one success and one overload", s.InFlight, s.Ended)
			}
			want := [admit.MaxClasses][admit.NumReasons]uint64{}
			for c := range 4 {
				want[c][admit.Draining] = 2
			}
			want[admit.Critical][admit.Draining] += 2
			if s.Refused != want {
				t.Errorf("refused: got %v, want %v", s.Refused, want)
			}
		})
	}
}

func TestDrainCannotBeUndone(t *testing.T) {
	g := newGate(t, 1)
	g.Drain()
	update(t, g, fixed(t, 10), queue(5, admit.Block))
	refused(t, g, admit.Default, admit.Draining)
	if s := g.Stats(); !s.Draining || s.Limit != 10 {
		t.Errorf("after Update: got draining %v, limit %d, want true, 10", s.Draining, s.Limit)
	}
}

func TestDrainOfAnIdleGate(t *testing.T) {
	g := newGate(t, 5)
	g.Drain()
	refused(t, g, admit.Critical, admit.Draining)
	if s := g.Stats(); s.InFlight != 0 {
		t.Errorf("in flight: got %d, want 0", s.InFlight)
	}
}

// Drain meets calls that come, wait, are handed permits and end: afterwards nobody
// waits and nobody is let in.
func TestDrainWhileCallsRun(t *testing.T) {
	for range 2000 / slowdown {
		g := newGate(t, 2, queue(4, admit.Reject))
		const callers, calls = 6, 5
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for range calls {
					if p, err := g.Acquire(t.Context(), admit.Call{}); err == nil {
						spin(1)
						p.Release(admit.Success)
					}
				}
			})
		}
		all.Go(func() { spin(3); g.Drain() })
		all.Wait()
		refused(t, g, admit.Critical, admit.Draining)
		s := g.Stats()
		if got, want := accounted(s), callers*calls+1; got != want || s.InFlight != 0 || s.Queue != 0 {
			t.Fatalf("after Drain: got %d accounted for, %d in flight, %d waiting, want %d, 0, 0", got, s.InFlight, s.Queue, want)
		}
	}
}
