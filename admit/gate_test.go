package admit_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

func TestDefaults(t *testing.T) {
	g, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	adaptive, err := limit.NewAdaptive(limit.AdaptiveConfig{})
	if err != nil {
		t.Fatal(err)
	}
	got := g.Stats()
	want := admit.Stats{Name: "default", Limit: adaptive.Limit(), MinLimit: 1, QueueCapacity: 4096, MaxWait: time.Second, Classes: classNames}
	if got != want {
		t.Errorf("a new gate: got %+v, want %+v", got, want)
	}
	if g.Name() != "default" {
		t.Errorf("name: got %q, want default", g.Name())
	}
}

func TestAsManyPermitsAsTheLimit(t *testing.T) {
	for _, n := range []int{1, 2, 7, 1000} {
		g := newGate(t, n, admit.WithoutQueue())
		permits := takeN(t, g, n)
		refused(t, g, admit.Critical, admit.QueueFull)
		if s := g.Stats(); s.InFlight != n || s.Utilization() != 1 {
			t.Errorf("limit %d: got %d in flight, utilization %v, want all", n, s.InFlight, s.Utilization())
		}
		permits[0].Release(admit.Ignored)
		permits[0] = take(t, g)
		refused(t, g, admit.Critical, admit.QueueFull)
		release(permits)
		wantWhole(t, g, n)
	}
}

func TestReleaseTwice(t *testing.T) {
	g := newGate(t, 2, admit.WithoutQueue())
	first, second := take(t, g), take(t, g)
	first.Release(admit.Success)
	first.Release(admit.Overload)
	first.Release(admit.Success)
	if s := g.Stats(); s.InFlight != 1 || s.Ended != [3]uint64{admit.Success: 1} {
		t.Errorf("after releasing one permit three times: got %d in flight, ended %v, want 1 and one success", s.InFlight, s.Ended)
	}
	second.Release(admit.Ignored)
	wantWhole(t, g, 2)
}

func TestReleaseTwiceAtTheSameTime(t *testing.T) {
	const rounds, releasers = 20_000 / slowdown, 4
	g := newGate(t, 3)
	for range rounds {
		p := take(t, g)
		var all sync.WaitGroup
		for range releasers {
			all.Go(func() { p.Release(admit.Success) })
		}
		all.Wait()
	}
	if s := g.Stats(); s.Ended[admit.Success] != rounds {
		t.Errorf("ended: got %v, want %d successes", s.Ended, rounds)
	}
	wantWhole(t, g, 3)
}

func TestZeroPermitHoldsNothing(t *testing.T) {
	var p admit.Permit
	p.Release(admit.Success)
	g := newGate(t, 1, admit.WithoutQueue())
	first := take(t, g)
	none, err := g.Acquire(t.Context(), admit.Call{})
	if err == nil {
		t.Fatal("Acquire: got a permit, want a refusal")
	}
	none.Release(admit.Success)
	if s := g.Stats(); s.InFlight != 1 || s.Ended != [3]uint64{} {
		t.Errorf("after releasing the permit of a refused call: got %d in flight, ended %v, want 1 and none", s.InFlight, s.Ended)
	}
	first.Release(admit.Ignored)
	wantWhole(t, g, 1)
}

// handle is the way in which a call is meant to be made: released in a defer,
// ignored unless the handler came back.
func handle(g *admit.Gate, handler func()) error {
	permit, err := g.Acquire(context.Background(), admit.Call{})
	if err != nil {
		return err
	}
	outcome := admit.Ignored
	defer func() { permit.Release(outcome) }()
	handler()
	outcome = admit.Success
	return nil
}

func TestPanicFreesThePermit(t *testing.T) {
	g := newGate(t, 2)
	for range 10 {
		func() {
			defer func() {
				if v := recover(); v != "boom" {
					t.Errorf("recovered: got %v, want boom", v)
				}
			}()
			_ = handle(g, func() { panic("boom") })
		}()
	}
	if s := g.Stats(); s.Ended != [3]uint64{admit.Ignored: 10} || s.Panics != 0 {
		t.Errorf("ended: got %v and %d panics, want 10 ignored and none of the gate's own", s.Ended, s.Panics)
	}
	wantWhole(t, g, 2)
}

func TestGoexitFreesThePermit(t *testing.T) {
	g := newGate(t, 2)
	for range 10 {
		var call sync.WaitGroup
		call.Go(func() { _ = handle(g, runtime.Goexit) })
		call.Wait()
	}
	if s := g.Stats(); s.Ended != [3]uint64{admit.Ignored: 10} {
		t.Errorf("ended: got %v, want 10 ignored", s.Ended)
	}
	wantWhole(t, g, 2)
}

// A panic or Goexit hands the permit to whoever waits, as any other end does.
func TestPanicAndGoexitHandThePermitOn(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1)
				go func() {
					defer func() { _ = recover() }()
					_ = handle(g, func() { time.Sleep(50 * ms); end() })
				}()
				synctest.Wait()
				next := start(t.Context(), g, admit.Default)
				wantState(t, "behind the handler", next, waits)
				time.Sleep(time.Second / 2)
				wantState(t, "after it ended", next, runs)
				if next.took != 50*ms {
					t.Errorf("waited: got %v, want 50ms", next.took)
				}
				next.permit.Release(admit.Ignored)
				wantWhole(t, g, 1)
			})
		})
	}
}

func TestUnknownClassAndOutcome(t *testing.T) {
	g := newGate(t, 1, admit.WithoutQueue())
	p, err := g.Acquire(t.Context(), admit.Call{Class: admit.Class(200)})
	if err != nil {
		t.Fatalf("Acquire: got %v, want a permit", err)
	}
	refused(t, g, admit.Class(255), admit.QueueFull)
	p.Release(admit.Outcome(200))
	s := g.Stats()
	if s.Ended != [3]uint64{admit.Ignored: 1} {
		t.Errorf("an unknown outcome: got ended %v, want 1 ignored", s.Ended)
	}
	if got := s.Refused[admit.Background][admit.QueueFull]; got != 1 {
		t.Errorf("an unknown class: got %v, want it refused as background", s.Refused)
	}
	wantWhole(t, g, 1)
}

func TestUnknownClassIsServedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(4, admit.Reject))
		p := take(t, g)
		unknown := start(t.Context(), g, admit.Class(77))
		sheddable := start(t.Context(), g, admit.Sheddable)
		got := served(p, map[string]*call{"unknown ": unknown, "sheddable ": sheddable})
		if want := "sheddable unknown "; got != want {
			t.Errorf("served: got %q, want %q", got, want)
		}
		wantWhole(t, g, 1)
	})
}

func TestNames(t *testing.T) {
	for want, got := range map[string]interface{ String() string }{
		"default": admit.Default, "critical": admit.Critical, "sheddable": admit.Sheddable, "background": admit.Background,
		"class(4)": admit.Class(4), "class(255)": admit.Class(255),
		"ignored": admit.Ignored, "success": admit.Success, "overload": admit.Overload, "outcome(3)": admit.Outcome(3),
		"queue_full": admit.QueueFull, "evicted": admit.Evicted, "deadline_too_close": admit.DeadlineTooClose,
		"waited_too_long": admit.WaitedTooLong, "draining": admit.Draining, "over_share": admit.OverShare, "over_quota": admit.OverQuota,
		"too_many_open":   admit.TooManyOpen,
		"memory_pressure": admit.MemoryPressure, "gc_pressure": admit.GCPressure, "processor_pressure": admit.ProcessorPressure,
		"under_pressure": admit.UnderPressure, "reason(12)": admit.Reason(12),
	} {
		if got.String() != want {
			t.Errorf("String: got %q, want %q", got, want)
		}
	}
	if (admit.Class(0) != admit.Default) || (admit.Outcome(0) != admit.Ignored) {
		t.Errorf("zero values: got %v and %v, want default and ignored", admit.Class(0), admit.Outcome(0))
	}
}

func TestErrors(t *testing.T) {
	g := newGate(t, 1, admit.WithoutQueue())
	p := take(t, g)
	r := refused(t, g, admit.Default, admit.QueueFull)
	if !errors.Is(r, admit.ErrRefused) || errors.Is(r, admit.ErrConfig) || errors.Is(r, context.Canceled) {
		t.Errorf("a refusal: got %v, want it to match ErrRefused and nothing else", r)
	}
	if got, want := r.Error(), "admit: refused: queue_full"; got != want {
		t.Errorf("message: got %q, want %q", got, want)
	}
	p.Release(admit.Ignored)
}

func TestAdmittingAndRefusingDoNotAllocate(t *testing.T) {
	ctx := context.Background()
	g := newGate(t, 1, admit.WithoutQueue())
	admitted := testing.AllocsPerRun(1000, func() {
		p, err := g.Acquire(ctx, admit.Call{})
		if err != nil {
			t.Error(err)
		}
		p.Release(admit.Success)
	})
	p := take(t, g)
	refused := testing.AllocsPerRun(1000, func() {
		if _, err := g.Acquire(ctx, admit.Call{}); err == nil {
			t.Error("Acquire: got a permit, want a refusal")
		}
	})
	p.Release(admit.Ignored)
	if admitted != 0 || refused != 0 {
		t.Errorf("allocations: got %v admitted, %v refused, want 0 and 0", admitted, refused)
	}
}

// TestFull goes through every state in which Full answers.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(1, admit.Reject))
		want := func(what string, full bool) {
			t.Helper()
			if got := gateFuncs.Full(g); got != full {
				t.Errorf("Full %s: got %v, want %v", what, got, full)
			}
		}
		want("of an idle gate", false)
		p := take(t, g)
		want("with a place in the queue", false)
		next := start(t.Context(), g, admit.Default)
		want("with the queue full", true)
		update(t, g, queue(2, admit.Reject))
		want("with a longer queue", false)
		update(t, g, queue(1, admit.Block))
		want("with Block", false)
		update(t, g, queue(1, admit.Reject))
		want("with Reject again", true)
		p.Release(admit.Ignored)
		synctest.Wait()
		wantState(t, "the waiter", next, runs)
		update(t, g, admit.WithoutQueue())
		want("without a queue", true)
		update(t, g, admit.WithDryRun(true))
		want("in a dry run", false)
		update(t, g, admit.WithDryRun(false))
		next.permit.Release(admit.Ignored)
		want("of an idle gate again", false)
		g.Drain()
		want("draining", true)
	})
}
