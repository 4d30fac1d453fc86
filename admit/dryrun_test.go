package admit_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// In a dry run of a gate with two permits and three places, eight calls run at once:
// two would have run, three waited, three been refused.
func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		g := newGate(t, 2, queue(3, admit.Reject), admit.WithDryRun(true), admit.WithHooks(r.hooks()))
		permits := takeN(t, g, 8)
		s := g.Stats()
		if !s.DryRun || s.InFlight != 8 || s.Queue != 0 || s.Utilization() != 4 {
			t.Errorf("got dry run %v, %d in flight, %d waiting, utilization %v, want true, 8, 0, 4", s.DryRun, s.InFlight, s.Queue, s.Utilization())
		}
		if got := s.Refused[admit.Default][admit.QueueFull]; s.Waited != 3 || got != 3 {
			t.Errorf("got %d that would wait, %d that would be refused, want 3, 3", s.Waited, got)
		}
		const want = "default refused queue_full 0s; default refused queue_full 0s; default refused queue_full 0s; " +
			"default waited 0s; default waited 0s; default waited 0s"
		if got := r.take(); got != want {
			t.Errorf("hooks: got %q, want %q", got, want)
		}
		if gateFuncs.Full(g) {
			t.Error("Full: got true, want false: nobody is refused")
		}
		time.Sleep(time.Second)
		for _, p := range permits {
			p.Release(admit.Success)
		}
		if s := g.Stats(); s.InFlight != 0 || s.Ended[admit.Success] != 8 || s.RunningSeconds != 8 {
			t.Errorf("at the end: got %d in flight, ended %v in %v s, want 0, 8 successes in 8", s.InFlight, s.Ended, s.RunningSeconds)
		}
		update(t, g, admit.WithDryRun(false))
		wantWhole(t, g, 2)
	})
}

func TestDryRunLetsWaitersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(9, admit.Reject))
		p := take(t, g)
		var calls []*call
		for i := range 9 {
			calls = append(calls, start(t.Context(), g, admit.Class(i%4)))
		}
		time.Sleep(5 * ms)
		update(t, g, admit.WithDryRun(true))
		synctest.Wait()
		for _, a := range calls {
			wantState(t, "a waiter", a, runs)
			if a.took != 5*ms {
				t.Errorf("waited: got %v, want 5ms", a.took)
			}
		}
		if s := g.Stats(); s.InFlight != 10 || s.Queue != 0 {
			t.Errorf("got %d in flight, %d waiting, want 10, 0", s.InFlight, s.Queue)
		}
		// Back to earnest: what runs above the limit runs on, newcomers wait for it.
		update(t, g, admit.WithDryRun(false))
		next := start(t.Context(), g, admit.Default)
		for _, a := range calls {
			wantState(t, "a newcomer", next, waits)
			a.permit.Release(admit.Ignored)
			synctest.Wait()
		}
		wantState(t, "a newcomer with the first call still running", next, waits)
		p.Release(admit.Ignored)
		synctest.Wait()
		wantState(t, "a newcomer at its turn", next, runs)
		next.permit.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

func TestDryRunTurnsNobodyAwayWhoHasTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithoutQueue())
		teach(t, g, 100*ms)
		update(t, g, admit.WithDryRun(true))
		p := take(t, g)
		ctx, cancel := context.WithTimeout(t.Context(), ms) // too close, in earnest
		defer cancel()
		a := start(ctx, g, admit.Background)
		wantState(t, "a call with little time", a, runs)
		a.permit.Release(admit.Ignored)
		cancel()
		if _, err := g.Acquire(ctx, admit.Call{Class: admit.Critical}); err != context.Canceled {
			t.Errorf("a call that is over: got %v, want context.Canceled", err)
		}
		p.Release(admit.Ignored)
	})
}

// What a dry run counts as refused is what would be.
func TestDryRunCountsWhatWouldBe(t *testing.T) {
	small := admit.WithClassConfig(admit.Background, admit.ClassConfig{Max: 0.25})
	for _, tt := range []struct {
		name    string
		option  admit.Option
		calls   []admit.Call
		refused uint64
	}{
		{"beyond a bound", admit.WithoutQueue(), []admit.Call{{Class: admit.Background}, {Class: admit.Background}}, 1},
		{"a cost that is not free", admit.WithoutQueue(), []admit.Call{{}, {}, {}, {Cost: 2}}, 1},
		{"few calls of a high cost", queue(10, admit.Reject), []admit.Call{{Cost: 100}, {Cost: 100}, {Cost: 100}}, 0},
	} {
		for _, dry := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 4, small, tt.option, admit.WithDryRun(dry))
				for _, c := range tt.calls {
					startCall(t.Context(), g, c)
				}
				s := g.Stats()
				if got := s.Refused[admit.Default][admit.QueueFull] + s.Refused[admit.Background][admit.QueueFull]; got != tt.refused {
					t.Errorf("%s, dry run %v: got %d refused, want %d", tt.name, dry, got, tt.refused)
				}
			})
		}
	}
}

// However much runs beyond the limit, it is not taken for a limit.
func TestDryRunOfManyCostlyCalls(t *testing.T) {
	g := newGate(t, limit.Max, admit.WithDryRun(true))
	var permits []*admit.Permit
	for range 4096 {
		p, err := g.Acquire(t.Context(), admit.Call{Cost: limit.Max})
		if err != nil {
			t.Fatal(err)
		}
		permits = append(permits, &p)
	}
	if s := g.Stats(); s.Limit != limit.Max || s.InFlight < 1024*limit.Max || s.InFlight > math.MaxInt32 {
		t.Errorf("got limit %d, in flight %d; want %d and 2^30 to 2^31", s.Limit, s.InFlight, limit.Max)
	}
	release(permits)
	if s := g.Stats(); s.InFlight != 0 {
		t.Errorf("in flight at the end: got %d, want 0", s.InFlight)
	}
}

// A dry run counts the calls that the bound of their class would have refused.
func TestDryRunOfABound(t *testing.T) {
	count := func(dry bool) (n uint64) {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 8, queue(4, admit.Reject), admit.WithDryRun(dry), admit.WithClassConfig(admit.Sheddable, admit.ClassConfig{Max: 0.25}))
			for range 8 {
				start(t.Context(), g, admit.Sheddable)
			}
			n = g.Stats().Refused[admit.Sheddable][admit.QueueFull]
			g.Drain()
		})
		return n
	}
	if wet, dry := count(false), count(true); wet != 5 || dry != wet {
		t.Errorf("8 calls of a class of which 2 may run and 1 may wait: got %d refused, and %d in a dry run, want 5 both times", wet, dry)
	}
}
