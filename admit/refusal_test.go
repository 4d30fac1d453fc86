package admit_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// delays refuses many times and returns the delays asked for, and the distinct
// refusals.
func delays(t *testing.T, refuse func() *admit.Refusal) (ds []time.Duration, distinct map[*admit.Refusal]bool) {
	t.Helper()
	distinct = map[*admit.Refusal]bool{}
	for range 5000 {
		r := refuse()
		distinct[r] = true
		ds = append(ds, r.RetryAfter)
	}
	slices.Sort(ds)
	return ds, distinct
}

// wantJitter: from half of mean to one and a half, rounded up to the next rung of a
// ladder of steps of 10 %, with the median near the mean.
func wantJitter(t *testing.T, what string, ds []time.Duration, mean time.Duration) {
	t.Helper()
	least, median, most := ds[0], ds[len(ds)/2], ds[len(ds)-1]
	if least < mean/2 || least > mean*6/10 || most > mean*165/100+ms || most < mean*14/10 {
		t.Errorf("%s: got delays from %v to %v, want about %v to %v", what, least, most, mean/2, mean*3/2)
	}
	if median < mean*9/10 || median > mean*12/10 {
		t.Errorf("%s: got a median of %v, want about %v", what, median, mean)
	}
}

func TestRetryAfterIsJittered(t *testing.T) {
	g := newGate(t, 1, admit.WithoutQueue())
	p := take(t, g)
	ds, distinct := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
	wantJitter(t, "refused now and then", ds, 100*ms)
	if len(distinct) < 8 || len(distinct) > 80 {
		t.Errorf("distinct refusals: got %d, want 8 to 80: enough to spread callers, few enough to prepare", len(distinct))
	}
	p.Release(admit.Ignored)

	g.Drain()
	ds, _ = delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.Draining) })
	wantJitter(t, "draining", ds, time.Second)
}

// The more is refused of what comes, the later it should come back; never later than
// half a minute.
func TestRetryAfterGrowsWithTheOverload(t *testing.T) {
	for overload, want := range map[int]time.Duration{1: 100 * ms, 4: 400 * ms, 20: 2 * time.Second, 150: 15 * time.Second, 1000: 15 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, admit.WithoutQueue())
			for range 21 { // two windows
				p := take(t, g)
				for range overload - 1 {
					refused(t, g, admit.Default, admit.QueueFull)
				}
				time.Sleep(10 * ms)
				p.Release(admit.Success)
			}
			p := take(t, g)
			ds, distinct := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
			if last := ds[len(ds)-1]; last > 30*time.Second {
				t.Errorf("overload %d: got a delay of %v, want at most 30s", overload, last)
			}
			wantJitter(t, "overload", ds, want)
			if len(distinct) > 80 {
				t.Errorf("distinct refusals: got %d, want at most 80", len(distinct))
			}
			p.Release(admit.Ignored)
		})
	}
}

// Refusals are shared by all gates of a process, so that there are a few hundred.
func TestRefusalsAreShared(t *testing.T) {
	all := map[*admit.Refusal]bool{}
	for range 50 {
		g := newGate(t, 1, admit.WithoutQueue())
		p := take(t, g)
		for range 200 {
			all[refused(t, g, admit.Default, admit.QueueFull)] = true
		}
		p.Release(admit.Ignored)
		g.Drain()
		for range 200 {
			all[refused(t, g, admit.Default, admit.Draining)] = true
		}
	}
	if len(all) > 2*80 {
		t.Errorf("distinct refusals of two reasons by 50 gates: got %d, want at most 160", len(all))
	}
}

// For one whom Full has turned away before it could ask: counted, and pressing on the
// limit, as if it had been refused.
func TestTurnAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		g := newGate(t, 1, admit.WithoutQueue(), admit.WithHooks(r.hooks()))
		for range 21 {
			p := take(t, g)
			for range 3 {
				g.TurnAway(admit.Call{Class: admit.Sheddable})
			}
			time.Sleep(10 * ms)
			p.Release(admit.Success)
		}
		s := g.Stats()
		if got := s.Refused[admit.Sheddable][admit.QueueFull]; got != 63 || accounted(s) != 84 {
			t.Errorf("turned away: got %d, and %d calls accounted for, want 63 and 84", got, accounted(s))
		}
		if got := r.take(); len(got) != 63*len("sheddable refused queue_full 0s; ")-2 {
			t.Errorf("hooks were told: got %q, want 63 refusals", got)
		}
		p := take(t, g)
		ds, _ := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
		wantJitter(t, "with three of four turned away", ds, 400*ms)
		p.Release(admit.Ignored)
		g.TurnAway(admit.Call{}) // a permit is free
		p = take(t, g)
		g.TurnAway(admit.Call{Class: 99})
		p.Release(admit.Ignored)
		if got := g.Stats().Refused[admit.Background][admit.QueueFull]; got != 1 {
			t.Errorf("turned away as an unknown class: got %d of background, want 1", got)
		}
		wantWhole(t, g, 1)

		g.Drain()
		g.TurnAway(admit.Call{Class: admit.Critical})
		if got := g.Stats().Refused[admit.Critical][admit.Draining]; got != 1 {
			t.Errorf("turned away while draining: got %d because of that, want 1", got)
		}
	})
}
