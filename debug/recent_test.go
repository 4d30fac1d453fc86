package debug_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
)

// says reports whether a finding of a source says something.
func says(t *testing.T, h *debug.Handler, source, text string) bool {
	t.Helper()
	for _, f := range look(t, h).GetFindings() {
		if f.GetSource() == source && strings.Contains(f.GetText(), text) {
			return true
		}
	}
	return false
}

// Refusals that come in bursts are a finding between two bursts, too, however often the page is
// looked at. The finding goes away after the last one.
func TestRefusalsInBursts(t *testing.T) {
	for name, every := range map[string]time.Duration{"twice a second": 500 * ms, "each second": time.Second, "seldom": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := must(admit.New(admit.WithFixedLimit(1), admit.WithoutQueue()))(t)
				h := must(debug.NewHandler(g))(t)
				p := must(g.Acquire(t.Context(), admit.Call{}))(t)
				defer p.Release(admit.Ignored)
				burst := func() {
					for range 100 {
						_, _ = g.Acquire(t.Context(), admit.Call{Class: admit.Critical})
					}
				}
				missed, looks, next := 0, 0, time.Now()
				for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(every) {
					if !time.Now().Before(next) {
						burst()
						next = next.Add(4 * time.Second)
					}
					if looks++; !says(t, h, "gate default", "of class critical for queue_full") {
						missed++
					}
				}
				if missed > 0 {
					t.Errorf("a burst every 4 s: got no finding at %d of %d looks, want one at each", missed, looks)
				}
				for range 30 {
					time.Sleep(time.Second)
					look(t, h)
				}
				if says(t, h, "gate default", "queue_full") {
					t.Error("half a minute after the last burst: got the finding, want none")
				}
			})
		})
	}
}

// The rate of a finding is the one of the last seconds, for the first look and for later ones.
func TestTheRateOfAFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := must(admit.New(admit.WithFixedLimit(1), admit.WithoutQueue()))(t)
		h := must(debug.NewHandler(g))(t)
		p := must(g.Acquire(t.Context(), admit.Call{}))(t)
		defer p.Release(admit.Ignored)
		look(t, h)
		for n := range 400 { // 20 a second
			_, _ = g.Acquire(t.Context(), admit.Call{})
			time.Sleep(50 * ms)
			if n%20 == 0 && !says(t, h, "gate default", "refuses 20 a second") && n > 200 {
				t.Fatalf("20 refusals a second: got %v, want that rate", look(t, h).GetFindings())
			}
		}
	})
}

// Calls that hang until their callers give up end all the time, and none succeeds. That is a
// finding, unless the gate is one of streams, or has calls that succeed.
func TestAlmostNothingSucceeds(t *testing.T) {
	for name, c := range map[string]struct {
		outcome admit.Outcome // of one call in two
		before  bool          // a call has succeeded at first
		late    bool          // the page is opened when calls fail already
		want    bool
	}{
		"calls that time out":            {admit.Overload, true, false, true},
		"calls that are canceled":        {admit.Ignored, true, false, true},
		"calls that time out, seen late": {admit.Overload, true, true, true},
		"streams":                        {admit.Ignored, false, false, false},
		"an overload":                    {admit.Success, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := must(admit.New(admit.WithFixedLimit(2), admit.WithoutQueue()))(t)
				h := must(debug.NewHandler(g))(t)
				if p := must(g.Acquire(t.Context(), admit.Call{}))(t); c.before {
					p.Release(admit.Success)
				} else {
					p.Release(admit.Ignored)
				}
				time.Sleep(20 * time.Second)
				for n := range 20 {
					a, b := must(g.Acquire(t.Context(), admit.Call{Method: "/a/Hangs"}))(t), must(g.Acquire(t.Context(), admit.Call{Method: "/a/Hangs"}))(t)
					_, _ = g.Acquire(t.Context(), admit.Call{})
					time.Sleep(time.Second)
					if !c.late || n > 15 {
						got := says(t, h, "gate default", "Almost nothing succeeds")
						if n > 8 && got != c.want {
							t.Errorf("look %d: got the finding %t, want %t: %v", n, got, c.want, look(t, h).GetFindings())
						}
					}
					if n > 16 && c.want && !says(t, h, "gate default", "/a/Hangs") {
						t.Errorf("got %v, want the method of the calls that hang", look(t, h).GetFindings())
					}
					a.Release(c.outcome)
					b.Release(admit.Ignored)
				}
			})
		})
	}
}

// A gate that is stuck does not wait for a small one whose calls end.
func TestASmallGateIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		front := must(admit.New(admit.WithName("front"), admit.WithFixedLimit(1), admit.WithQueue(admit.QueueConfig{Policy: admit.Block})))(t)
		small := must(admit.New(admit.WithName("small"), admit.WithFixedLimit(1), admit.WithoutQueue()))(t)
		spare := must(admit.New(admit.WithName("spare")))(t)
		h := must(debug.NewHandler(front, small, spare))(t)
		p := must(front.Acquire(t.Context(), admit.Call{}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = front.Acquire(ctx, admit.Call{}) }()
		for range 20 {
			p := must(small.Acquire(t.Context(), admit.Call{}))(t)
			time.Sleep(time.Second)
			look(t, h)
			p.Release(admit.Success)
		}
		busy := must(small.Acquire(t.Context(), admit.Call{}))(t)
		text := finding(t, h, "gate front")
		wantSays(t, "a small gate in use", text, "Nothing moves.", "gates (spare) have permits to spare")
		if strings.Contains(text, "small") {
			t.Errorf("a small gate in use: got %q, want no word of it", text)
		}
		busy.Release(admit.Success)
		cancel()
		synctest.Wait()
		p.Release(admit.Success)
	})
}
