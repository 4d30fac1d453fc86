package admit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

func TestCancelWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(5, admit.Reject))
		p := take(t, g)
		ctx, cancel := context.WithCancelCause(t.Context())
		before := start(t.Context(), g, admit.Default)
		leaver := start(ctx, g, admit.Default)
		after := start(t.Context(), g, admit.Default)
		time.Sleep(20 * ms)
		cancel(errors.New("a cause of its own"))
		synctest.Wait()
		if leaver.err != context.Canceled || leaver.took != 20*ms {
			t.Errorf("cancelled after 20ms: got %v after %v, want context.Canceled, unchanged, at once", leaver.err, leaver.took)
		}
		if s := g.Stats(); s.Queue != 2 || s.Left != 1 || s.Waited != 0 {
			t.Errorf("after one of three left: got %d waiting, %d left, %d let in, want 2, 1, 0", s.Queue, s.Left, s.Waited)
		}
		if got, want := served(p, map[string]*call{"a": before, "b": leaver, "c": after}), "ac"; got != want {
			t.Errorf("served: got %q, want %q", got, want)
		}
		wantWhole(t, g, 1)
	})
}

func TestCancelMakesRoomInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(1, admit.Reject))
		p := take(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		start(ctx, g, admit.Default)
		refused(t, g, admit.Default, admit.QueueFull)
		cancel()
		synctest.Wait()
		next := start(t.Context(), g, admit.Default)
		wantState(t, "the next after one left", next, waits)
		p.Release(admit.Ignored)
		synctest.Wait()
		wantState(t, "the next at its turn", next, runs)
		next.permit.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

// When the only waiter leaves, calls find their way without the queue again.
func TestCancelOfTheOnlyWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1)
		p := take(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		start(ctx, g, admit.Default)
		cancel()
		synctest.Wait()
		for range 3 {
			p.Release(admit.Ignored)
			p = take(t, g)
		}
		p.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

func TestCancelledBeforeItBegan(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := newGate(t, 1)
	if _, err := g.Acquire(ctx, admit.Call{Class: admit.Critical}); err != context.Canceled {
		t.Errorf("Acquire: got %v, want context.Canceled though a permit is free", err)
	}
	if s := g.Stats(); s.Left != 1 || s.InFlight != 0 {
		t.Errorf("stats: got %d left, %d in flight, want 1, 0", s.Left, s.InFlight)
	}
	wantWhole(t, g, 1)
}

// A caller that leaves and is given the permit before it knows: whichever it sees
// first, it must not run, and the permit goes to the next one.
func TestPermitOfOneThatLeftGoesOn(t *testing.T) {
	for _, first := range []string{"cancel", "hand over"} {
		t.Run(first+" first", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for range 200 { // either case of a select may win
					g := newGate(t, 1)
					p := take(t, g)
					ctx, cancel := context.WithCancel(t.Context())
					leaver := start(ctx, g, admit.Default)
					next := start(t.Context(), g, admit.Default)
					if first == "cancel" {
						cancel()
						p.Release(admit.Success)
					} else {
						p.Release(admit.Success)
						cancel()
					}
					synctest.Wait()
					if leaver.err == nil && first == "hand over" { // it was served, and left later
						leaver.permit.Release(admit.Ignored)
						synctest.Wait()
					} else if leaver.err != context.Canceled {
						t.Fatalf("the one that left: got %q, want context.Canceled", leaver.state())
					}
					wantState(t, "the next", next, runs)
					next.permit.Release(admit.Ignored)
					wantWhole(t, g, 1)
				}
			})
		})
	}
}

// A million calls for each queue, in pairs of a caller and somebody who cancels it, go through a
// gate that is always busy: hand-over and cancellation meet in every order that two
// cores produce, and in the end no permit is missing or was given twice.
func TestCancelRacesHandOver(t *testing.T) {
	const rounds, pairs = 1_000_000 / slowdown, 4
	for _, tt := range []struct {
		name    string
		permits int
		options []admit.Option
	}{
		{"one permit", 1, []admit.Option{queue(pairs, admit.Reject)}},
		{"two permits, a short queue", 2, []admit.Option{queue(2, admit.Reject)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, tt.permits, tt.options...)
			var running, most atomic.Int64
			var all sync.WaitGroup
			for range pairs {
				cancels := make(chan context.CancelFunc)
				all.Go(func() {
					for cancel := range cancels {
						spin(rand.IntN(8))
						cancel()
					}
				})
				all.Go(func() {
					defer close(cancels)
					for range rounds / pairs {
						ctx, cancel := context.WithCancel(t.Context())
						cancels <- cancel
						p, err := g.Acquire(ctx, admit.Call{Class: admit.Class(rand.IntN(4))})
						if err != nil {
							continue
						}
						if n := running.Add(1); n > most.Load() {
							most.Store(n)
						}
						spin(rand.IntN(4))
						running.Add(-1)
						p.Release(admit.Success)
					}
				})
			}
			all.Wait()
			s := g.Stats()
			if most.Load() > int64(tt.permits) {
				t.Errorf("running at once: got %d, want at most %d", most.Load(), tt.permits)
			}
			if got, want := accounted(s), rounds; got != want {
				t.Errorf("calls accounted for: got %d, want %d: %+v", got, want, s)
			}
			if s.Waited == 0 || s.Left == 0 || s.Ended[admit.Success] == s.Waited {
				t.Errorf("got %d let in after waiting, %d left, %d ran, want some of each", s.Waited, s.Left, s.Ended[admit.Success])
			}
			t.Logf("%d calls: %d ran, %d of them after waiting; %d left", rounds, s.Ended[admit.Success], s.Waited, s.Left)
			wantWhole(t, g, tt.permits)
		})
	}
}

// spin passes a little time, and lets others run meanwhile.
func spin(n int) {
	for range n {
		runtime.Gosched()
	}
}
