package admit_test

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// A moody law answers Limit differently each time, and panics when it has no more answers.
type moody struct {
	asked   int
	answers []int
}

func (m *moody) Limit() int {
	m.asked++
	return m.answers[m.asked-1]
}

func (m *moody) Update(limit.Window) int { return 1 }

// limit.Algorithm: "A gate calls it once, before the first window". What was checked is
// then what is used.
func TestLimitIsAskedOnce(t *testing.T) {
	fresh := func() *moody { return &moody{answers: []int{3, math.MaxInt, -1, 5, 5}} }
	inNew := fresh()
	g := newGate(t, 1, admit.WithLimit(inNew))
	if inNew.asked != 1 {
		t.Errorf("New: got Limit called %d times, want once", inNew.asked)
	}
	if s := g.Stats(); s.Limit != 3 {
		t.Errorf("New: got a limit of %d, want 3, the one that was checked", s.Limit)
	}
	g = newGate(t, 1)
	inUpdate := fresh()
	update(t, g, admit.WithLimit(inUpdate))
	if inUpdate.asked != 1 {
		t.Errorf("Update: got Limit called %d times, want once", inUpdate.asked)
	}
	if s := g.Stats(); s.Limit != 3 || s.InFlight != 0 {
		t.Errorf("Update: got a limit of %d and %d in flight, want 3, the one that was checked, and 0", s.Limit, s.InFlight)
	}
}

// An algorithm whose Limit panics leaves the gate as it was, and its lock free.
func TestLimitPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2)
		before := g.Stats()
		func() {
			defer func() { _ = recover() }() // whether Update panics too is not promised
			if err := g.Update(admit.WithLimit(&moody{}), admit.WithDryRun(true), admit.WithoutQueue()); err == nil {
				t.Error("Update: got no error, want one, or a panic")
			}
		}()
		if got := statsNow(g); got != before {
			t.Errorf("after it: got %+v, want %+v as before, and the lock free", got, before)
			return
		}
		wantWhole(t, g, 2)
	})
}

// An algorithm that ends the goroutine in which it is asked takes neither the permit nor
// the gate's lock with it.
func TestGoexitInTheAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithLimit(&law{initial: 2, next: func(limit.Window) int { runtime.Goexit(); return 0 }}))
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { closeWindow(t, g) })
			all.Wait()
		}
		if s := statsNow(g); s.Limit != 2 || s.InFlight != 0 {
			t.Errorf("after it: got limit %d, %d in flight, want 2, 0, and the lock free", s.Limit, s.InFlight)
			return
		}
		wantWhole(t, g, 2)
	})
}

// The same with a caller that waits. Nobody receives its verdict, and the permit is not lost.
func TestGoexitInTheAlgorithmWhileACallWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithLimit(&law{initial: 1, next: func(limit.Window) int { runtime.Goexit(); return 0 }}))
		for range limit.WindowCalls {
			take(t, g).Release(admit.Ignored)
		}
		held := take(t, g)
		time.Sleep(2 * limit.WindowLength)
		var caller sync.WaitGroup
		caller.Go(func() {
			_, err := g.Acquire(t.Context(), admit.Call{})
			t.Errorf("Acquire: got %v, want the end of the goroutine", err)
		})
		caller.Wait()
		held.Release(admit.Ignored)
		if s := g.Stats(); s.InFlight != 0 || s.Queue != 0 {
			t.Errorf("after it: got %d in flight and %d waiting, want none", s.InFlight, s.Queue)
		}
		wantWhole(t, g, 1)
	})
}
