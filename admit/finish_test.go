package admit_test

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

func wantLeaving(t testing.TB, g *admit.Gate, inFlight, leaving, beyond int) {
	t.Helper()
	if s := g.Stats(); s.InFlight != inFlight || s.Leaving != leaving || s.Beyond != beyond {
		t.Errorf("in flight, leaving, beyond: got %d, %d, %d, want %d, %d, %d", s.InFlight, s.Leaving, s.Beyond, inFlight, leaving, beyond)
	}
}

// learning returns a gate with an adaptive limit that begins with n.
func learning(t testing.TB, n int, opts ...admit.Option) *admit.Gate {
	t.Helper()
	a, err := limit.NewAdaptive(limit.AdaptiveConfig{Initial: n})
	if err != nil {
		t.Fatal(err)
	}
	return newGate(t, 1, append(opts, admit.WithLimit(a))...)
}

// With a fixed limit a finished call keeps its permit until Release, which goes to a waiter.
func TestFinishKeepsThePermitOfAFixedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2)
		first, second := take(t, g), take(t, g)
		first.Finish(admit.Success)
		wantLeaving(t, g, 2, 1, 0)
		if got := g.Stats().Utilization(); got != 1 {
			t.Errorf("utilization: got %v, want 1", got)
		}
		third := start(t.Context(), g, admit.Default)
		first.Release(admit.Overload)
		wantState(t, "a waiter", third, runs)
		wantLeaving(t, g, 2, 0, 0)
		second.Finish(admit.Overload)
		release([]*admit.Permit{second, &third.permit})
		wantLeaving(t, g, 0, 0, 0)
		if got, want := g.Stats().Ended, [3]uint64{1, 1, 1}; got != want {
			t.Errorf("ended (ignored, success, overload): got %v, want %v: each call once, as Finish said", got, want)
		}
		wantWhole(t, g, 2)
	})
}

// A finished call comes on top of a limit that adapts, with its whole cost, and is open.
func TestFinishIsBeyondAnAdaptiveLimit(t *testing.T) {
	g := learning(t, 2, admit.WithoutQueue(), admit.WithMaxOpen(5))
	p, err := g.Acquire(t.Context(), admit.Call{Cost: 2})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, g, admit.Default, admit.QueueFull)
	p.Finish(admit.Success)
	wantLeaving(t, g, 2, 2, 2)
	if s := g.Stats(); s.Utilization() != 0 || s.Open() != 2 {
		t.Errorf("got a utilization of %v and %d open, want 0 and 2", s.Utilization(), s.Open())
	}
	more := takeN(t, g, 2)
	wantLeaving(t, g, 4, 2, 2)
	more[0].Finish(admit.Success)
	more = append(more, take(t, g))
	tooMany(t, g)
	p.Release(admit.Ignored)
	release(more)
	wantLeaving(t, g, 0, 0, 0)
}

// The latency that the limit learns ends with Finish, however long the response stays.
func TestTheLimitLearnsUntilFinish(t *testing.T) {
	for _, fixed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 4)
			if !fixed {
				g = learning(t, 4)
			}
			p := take(t, g)
			time.Sleep(5 * ms)
			p.Finish(admit.Success)
			time.Sleep(time.Hour)
			p.Release(admit.Overload)
			s := g.Stats()
			if got := s.RunningSeconds; math.Abs(got-0.005) > 1e-9 {
				t.Errorf("fixed %v: got %v s of running calls, want 0.005", fixed, got)
			}
			if s.Ended[admit.Success] != 1 || s.Ended[admit.Overload] != 0 {
				t.Errorf("fixed %v: ended: got %v, want one success", fixed, s.Ended)
			}
		})
	}
}

// An adaptive limit does not sink and does not refuse while clients are slow to take their
// responses.
func TestSlowClientsDoNotLowerTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := admit.New()
		if err != nil {
			t.Fatal(err)
		}
		var calls sync.WaitGroup
		before := g.Limit()
		for range 2000 {
			time.Sleep(5 * ms)
			calls.Go(func() {
				p, err := g.Acquire(t.Context(), admit.Call{})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(5 * ms)
				p.Finish(admit.Success)
				time.Sleep(3 * time.Second)
				p.Release(admit.Ignored)
			})
		}
		if s := g.Stats(); s.Limit < before || s.Leaving < 500 {
			t.Errorf("got a limit of %d and %d leaving, want at least %d and 500", s.Limit, s.Leaving, before)
		}
		calls.Wait()
		wantLeaving(t, g, 0, 0, 0)
	})
}

// Finish, Ready and Release do their work once, in any order, from many goroutines, and
// while the algorithm changes.
func TestFinishIsIdempotent(t *testing.T) {
	for range 200 {
		g := newGate(t, 1, admit.WithoutQueue())
		p := take(t, g)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { p.Finish(admit.Success) })
			all.Go(func() { p.Ready(admit.Success) })
			all.Go(func() { p.Release(admit.Ignored) })
		}
		all.Go(func() { update(t, g, admit.WithLimit(another(t))) })
		all.Wait()
		p.Finish(admit.Success)
		wantLeaving(t, g, 0, 0, 0)
		wantOpen(t, g, 0, 0, 0)
		if s := g.Stats(); s.Ended[admit.Ignored]+s.Ended[admit.Success] != 1 {
			t.Fatalf("ended: got %v, want one call", s.Ended)
		}
	}
	var none admit.Permit
	none.Finish(admit.Success)
}

func another(t testing.TB) limit.Algorithm {
	t.Helper()
	a, err := limit.NewAIMD(limit.AIMDConfig{Initial: 1})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Whatever calls do, nothing is left when all were released.
func TestFinishProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, err := limit.NewAIMD(limit.AIMDConfig{Initial: 5})
		if err != nil {
			t.Fatal(err)
		}
		opts := []admit.Option{admit.WithoutQueue(), admit.WithClassConfig(admit.Default, admit.ClassConfig{Max: 0.8})}
		if rapid.Bool().Draw(t, "adapts") {
			opts = append(opts, admit.WithLimit(a))
		} else {
			opts = append(opts, admit.WithFixedLimit(5))
		}
		g, err := admit.New(opts...)
		if err != nil {
			t.Fatal(err)
		}
		var held []*admit.Permit
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				if p, err := g.Acquire(t.Context(), admit.Call{Cost: rapid.IntRange(1, 3).Draw(t, "cost")}); err == nil {
					held = append(held, &p)
				}
			case 1, 2:
				if len(held) > 0 {
					held[rapid.IntRange(0, len(held)-1).Draw(t, "which")].Finish(admit.Success)
				}
			case 3:
				if len(held) > 0 {
					held[0].Release(admit.Success)
					held = held[1:]
				}
			}
			if s := g.Stats(); s.Beyond > s.Leaving || s.Leaving > s.InFlight || s.InFlight-s.Beyond > s.Limit {
				t.Fatalf("got limit %d, in flight %d, leaving %d, beyond %d", s.Limit, s.InFlight, s.Leaving, s.Beyond)
			}
		}
		release(held)
		if s := g.Stats(); s.InFlight+s.Leaving+s.Beyond+s.Held[admit.Default] != 0 {
			t.Fatalf("at rest: got in flight %d, leaving %d, beyond %d, held %d, want none", s.InFlight, s.Leaving, s.Beyond, s.Held[admit.Default])
		}
	})
}
