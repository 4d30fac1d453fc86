package admit_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
)

// tooMany refuses a call because too many are open.
func tooMany(t testing.TB, g *admit.Gate) {
	t.Helper()
	if r := refused(t, g, admit.Critical, admit.TooManyOpen); r.RetryAfter < 300*ms || r.RetryAfter > time.Second {
		t.Errorf("RetryAfter: got %v, want 1/3 s to a second", r.RetryAfter)
	}
}

func wantOpen(t testing.TB, g *admit.Gate, inFlight, queue, ready int) {
	t.Helper()
	s := g.Stats()
	if s.InFlight != inFlight || s.Queue != queue || s.Ready != ready || s.Open() != inFlight+queue+ready {
		t.Errorf("in flight, queue, ready, open: got %d, %d, %d, %d; want %d, %d, %d, %d",
			s.InFlight, s.Queue, s.Ready, s.Open(), inFlight, queue, ready, inFlight+queue+ready)
	}
}

// A call that is ready has no permit, and is open until it is released.
func TestReady(t *testing.T) {
	g := newGate(t, 2, admit.WithoutQueue(), admit.WithMaxOpen(4))
	first, second := take(t, g), take(t, g)
	refused(t, g, admit.Default, admit.QueueFull)
	first.Ready(admit.Success)
	second.Ready(admit.Overload)
	wantOpen(t, g, 0, 0, 2)
	third, fourth := take(t, g), take(t, g)
	wantOpen(t, g, 2, 0, 2)
	tooMany(t, g)
	third.Ready(admit.Success)
	tooMany(t, g) // a permit is free
	first.Release(admit.Overload)
	fifth := take(t, g)
	tooMany(t, g)
	release([]*admit.Permit{second, third, fourth, fifth})
	wantOpen(t, g, 0, 0, 0)
	if got, want := g.Stats().Ended, [3]uint64{2, 2, 1}; got != want {
		t.Errorf("ended (ignored, success, overload): got %v, want %v: each call once, as Ready said", got, want)
	}
	if got := g.Stats().Refused[admit.Critical][admit.TooManyOpen]; got != 3 {
		t.Errorf("refused: got %d, want 3", got)
	}
}

// Ready and Release do their work once, in any order and from many goroutines.
func TestReadyIsIdempotent(t *testing.T) {
	for range 200 {
		g := newGate(t, 1, admit.WithoutQueue(), admit.WithMaxOpen(9))
		p := take(t, g)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { p.Ready(admit.Success) })
			all.Go(func() { p.Release(admit.Ignored) })
		}
		all.Wait()
		p.Ready(admit.Success)
		wantOpen(t, g, 0, 0, 0)
		s := g.Stats()
		if n := s.Ended[admit.Ignored] + s.Ended[admit.Success]; n != 1 {
			t.Fatalf("ended: got %d, want 1", n)
		}
		wantWhole(t, g, 1)
	}
	var none admit.Permit
	none.Ready(admit.Success)
	none.Release(admit.Success)
}

// A permit that has moved is another variable's.
func TestMoveTo(t *testing.T) {
	g := newGate(t, 1, admit.WithoutQueue())
	p := take(t, g)
	var to admit.Permit
	p.MoveTo(&to)
	p.Ready(admit.Success)
	p.Release(admit.Success)
	wantOpen(t, g, 1, 0, 0)
	to.Ready(admit.Success)
	wantOpen(t, g, 0, 0, 1)
	to.Release(admit.Ignored)
	wantOpen(t, g, 0, 0, 0)
}

// A call is open while it waits, and a permit that comes free with Ready goes to it.
func TestWaitingCallsAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithMaxOpen(3))
		first := take(t, g)
		ctx, leave := context.WithCancel(t.Context())
		waiting, impatient := start(t.Context(), g, admit.Default), start(ctx, g, admit.Default)
		wantOpen(t, g, 1, 2, 0)
		tooMany(t, g)
		leave()
		wantState(t, "a call that left", impatient, context.Canceled.Error())
		third := start(t.Context(), g, admit.Default)
		tooMany(t, g)
		first.Ready(admit.Success)
		wantState(t, "the first that waits", waiting, runs)
		wantOpen(t, g, 1, 1, 1)
		first.Release(admit.Ignored)
		waiting.permit.Release(admit.Ignored)
		wantState(t, "the next", third, runs)
		third.permit.Release(admit.Ignored)
		wantOpen(t, g, 0, 0, 0)
	})
}

// The law learns how long a call took to be ready, not how long it was open.
func TestTheLimitLearnsUntilReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1)
		p := take(t, g)
		time.Sleep(5 * ms)
		p.Ready(admit.Success)
		time.Sleep(time.Hour)
		p.Release(admit.Success)
		if got := g.Stats().RunningSeconds; got != 0.005 {
			t.Errorf("running: got %v s, want 0.005", got)
		}
	})
}

// The bound can be set, lowered and taken away while calls are open.
func TestMaxOpenChanges(t *testing.T) {
	g := newGate(t, 10, admit.WithoutQueue())
	permits := takeN(t, g, 3)
	permits[0].Ready(admit.Success)
	update(t, g, admit.WithMaxOpen(4))
	permits = append(permits, take(t, g))
	tooMany(t, g)
	update(t, g, admit.WithMaxOpen(2)) // ends no call
	wantOpen(t, g, 3, 0, 1)
	release(permits[2:])
	tooMany(t, g)
	update(t, g, admit.WithMaxOpen(0))
	permits = append(permits[:2], takeN(t, g, 9)...)
	release(permits)
	wantOpen(t, g, 0, 0, 0)
	for _, n := range []int{-1, 1<<30 + 1} {
		wantError(t, g.Update(admit.WithMaxOpen(n)), admit.ErrConfig, "WithMaxOpen: got ")
	}
	if got := g.Stats().MaxOpen; got != 0 {
		t.Errorf("MaxOpen after a wrong update: got %d, want 0", got)
	}
}

func TestMaxOpenFromJSON(t *testing.T) {
	g := newGate(t, 10, fromJSON(t, `{"max_open": 5000}`))
	if s := g.Stats(); s.MaxOpen != 5000 || gateFuncs.Room(g) != 5000 {
		t.Errorf("got MaxOpen %d and room for %d, want 5000", s.MaxOpen, gateFuncs.Room(g))
	}
	update(t, g, fromJSON(t, `{"queue": null}`))
	if got := g.Stats().MaxOpen; got != 5000 {
		t.Errorf("another key: got MaxOpen %d, want 5000 still", got)
	}
	update(t, g, fromJSON(t, `{"max_open": null}`))
	if got := g.Stats().MaxOpen; got != 0 {
		t.Errorf("null: got MaxOpen %d, want 0", got)
	}
	for document, says := range map[string]string{
		`{"max_open": 0}`:          "line 1: max_open: got 0, want 1 to ",
		`{"max_open": -1}`:         "line 1: max_open: got -1, want 1 to ",
		`{"max_open": 1.5}`:        "line 1: max_open: got 1.5",
		`{"max_open": 2000000000}`: "line 1: max_open: got 2000000000",
		`{"max_open": "5"}`:        "line 1: max_open: got \"5\"",
		`{"max_opens": 5}`:         "max_opens",
	} {
		_, err := admit.FromJSON([]byte(document))
		wantError(t, err, admit.ErrConfig, says)
	}
}

// A gate that drains says so, also when too many are open; a tap sees both.
func TestMaxOpenAndTheRest(t *testing.T) {
	g := newGate(t, 9, admit.WithMaxOpen(1))
	p := take(t, g)
	p.Ready(admit.Success)
	if why, away := gateFuncs.TurnAway(context.Background(), g, admit.Call{}); !gateFuncs.Full(g) || !away || why != admit.TooManyOpen {
		t.Errorf("Full, TurnAway: got %v, %v, %v; want true, too_many_open, true", gateFuncs.Full(g), why, away)
	}
	if got := g.Stats().Refused[admit.Default][admit.TooManyOpen]; got != 1 {
		t.Errorf("refused: got %d, want 1", got)
	}
	g.Drain()
	refused(t, g, admit.Default, admit.Draining)
	p.Release(admit.Ignored)
	wantOpen(t, g, 0, 0, 0)
}

// A dry run counts each call that would be one too many once, and lets it in.
func TestMaxOpenInADryRun(t *testing.T) {
	var told atomic.Int32
	g := newGate(t, 5, admit.WithMaxOpen(2), admit.WithDryRun(true), admit.WithHooks(admit.Hooks{
		Refused: func(_ context.Context, _ admit.Call, why admit.Reason, _ time.Duration) {
			if why == admit.TooManyOpen {
				told.Add(1)
			}
		},
	}))
	permits := takeN(t, g, 4)
	wantOpen(t, g, 4, 0, 0)
	if got := g.Stats().Refused[admit.Default]; got[admit.TooManyOpen] != 2 || got[admit.QueueFull] != 0 || told.Load() != 2 {
		t.Errorf("refused: got %v, told of %d; want 2 for too_many_open and no others", got, told.Load())
	}
	if _, away := gateFuncs.TurnAway(context.Background(), g, admit.Call{}); away || gateFuncs.Full(g) {
		t.Error("a tap: got that it turns calls away in a dry run, want that it does not")
	}
	release(permits)
	wantOpen(t, g, 0, 0, 0)
}

// However calls come, get ready and end, no more are open than may be, and all are counted.
func TestOpenCallsAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, most := rapid.IntRange(1, 5).Draw(t, "limit"), rapid.IntRange(1, 8).Draw(t, "most")
		g, err := admit.New(admit.WithLimit(&law{initial: limit}), admit.WithoutQueue(), admit.WithMaxOpen(most))
		if err != nil {
			t.Fatal(err)
		}
		var holding, going []*admit.Permit
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				p, err := g.Acquire(context.Background(), admit.Call{})
				fits := len(holding) < limit && len(holding)+len(going) < most
				if (err == nil) != fits {
					t.Fatalf("with %d permits and %d ready: got %v", len(holding), len(going), err)
				}
				if err == nil {
					holding = append(holding, &p)
				}
			case 2:
				if len(holding) > 0 {
					holding[0].Ready(admit.Ignored)
					going, holding = append(going, holding[0]), holding[1:]
				}
			case 3:
				if all := slices.Concat(going, holding); len(all) > 0 {
					i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
					all[i].Release(admit.Ignored)
					if i < len(going) {
						going = append(going[:i:i], going[i+1:]...)
					} else {
						i -= len(going)
						holding = append(holding[:i:i], holding[i+1:]...)
					}
				}
			}
			if s := g.Stats(); s.InFlight != len(holding) || s.Ready != len(going) {
				t.Fatalf("got %d in flight and %d ready, want %d and %d", s.InFlight, s.Ready, len(holding), len(going))
			}
		}
	})
}

// Callers in parallel never open more than may be.
func TestOpenCallsAreBoundedInParallel(t *testing.T) {
	const most = 3
	g := newGate(t, 2, admit.WithoutQueue(), admit.WithMaxOpen(most))
	var open atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				p, err := g.Acquire(context.Background(), admit.Call{})
				if err != nil {
					continue
				}
				if n := open.Add(1); n > most {
					t.Errorf("open: got %d, want at most %d", n, most)
				}
				p.Ready(admit.Success)
				open.Add(-1)
				p.Release(admit.Ignored)
			}
		})
	}
	all.Wait()
	wantOpen(t, g, 0, 0, 0)
}
