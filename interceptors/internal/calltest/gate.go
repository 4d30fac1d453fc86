package calltest

import (
	"context"
	"testing"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// Fixed is a limit that stays as it is.
type Fixed int

func (f Fixed) Limit() int { return int(f) }

func (f Fixed) Update(limit.Window) int { return int(f) }

// NewGate returns a gate.
func NewGate(tb testing.TB, opts ...admit.Option) *admit.Gate {
	tb.Helper()
	g, err := admit.New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// Strict is a gate that lets n calls run and refuses the others at once.
func Strict(tb testing.TB, n int) *admit.Gate {
	tb.Helper()
	return NewGate(tb, admit.WithLimit(Fixed(n)), admit.WithoutQueue())
}

// Fill takes all permits of a gate until the test is over.
func Fill(tb testing.TB, g *admit.Gate) {
	tb.Helper()
	for g.Stats().InFlight < g.Stats().Limit {
		Hold(tb, g)
	}
}

// Hold takes a permit and returns the function that releases it.
func Hold(tb testing.TB, g *admit.Gate) (release func()) {
	tb.Helper()
	p, err := g.Acquire(context.Background(), admit.Call{})
	if err != nil {
		tb.Fatal(err)
	}
	release = func() { p.Release(admit.Ignored) }
	tb.Cleanup(release)
	return release
}

// AtRest checks that a gate is empty, and how many calls ended with each outcome. want has
// the numbers of ignored calls, successes and overloads, in this order.
func AtRest(tb testing.TB, g *admit.Gate, want ...uint64) {
	tb.Helper()
	s := g.Stats()
	if s.InFlight != 0 || s.Queue != 0 {
		tb.Errorf("gate at rest: got %d in flight and %d queued, want 0 and 0", s.InFlight, s.Queue)
	}
	if want != nil && s.Ended != [3]uint64(want) {
		tb.Errorf("ended (ignored, success, overload): got %v, want %v", s.Ended, want)
	}
}
