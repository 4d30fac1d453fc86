package admit

import (
	"context"

	"github.com/weir-go/weir/admit/internal/turn"
)

// maxOpen is the largest bound of WithMaxOpen.
const maxOpen = 1 << 30

// WithMaxOpen bounds the number of open calls, from 1 to 2^30. Zero, the default, means no
// bound. A call is open from its arrival until Release. While it waits it counts as one,
// while it holds its permit it counts for its cost, also after [Permit.Finish], and after
// [Permit.Ready] as one.
//
// Use it for streams that need a permit only to begin. The limit bounds how many begin at
// once, and this option how many are open. The gate refuses a call above the bound with
// [TooManyOpen], whatever its class. A lower bound, set by [Gate.Update], ends no call.
// While there is a bound, every call takes the gate's lock.
func WithMaxOpen(n int) Option { return option(func(c *config) { c.maxOpen = n }) }

// Ready returns the permit while the call goes on, and tells the limit how the call has begun,
// as Release does. The call stays open, as [WithMaxOpen] counts it, until Release. Ready
// does not block and is safe for concurrent use. Only the first call counts, and none after
// Release.
//
//	permit.Ready(admit.Success) // the watch is set up
func (p *Permit) Ready(o Outcome) {
	if p.gate == nil || !p.state.CompareAndSwap(held, ready) {
		return
	}
	p.gate.ready.Add(1) // before the permit is free, or one call too many could open
	p.giveBack(o)
}

// MoveTo moves the permit to another variable, which must not hold one. After that p holds nothing. No
// other goroutine may use either variable meanwhile.
func (p *Permit) MoveTo(to *Permit) {
	to.gate, to.start, to.claim, to.pressed, to.waited, to.due = p.gate, p.start, p.claim, p.pressed, p.waited, p.due
	to.state.Store(p.state.Load())
	p.gate = nil
}

// readyCalls returns the number of calls that go on without a permit. A Release that overtakes
// its Ready makes the counter negative for a moment.
func (g *Gate) readyCalls() int { return int(max(g.ready.Load(), 0)) }

// openLocked returns the number of open calls. A call inside Ready may count twice.
func (g *Gate) openLocked() int {
	_, beyond := g.leavingPermits()
	return g.inFlight.load().inFlight() + beyond + g.turns.Len() + g.readyCalls()
}

// tooManyOpenLocked reports whether one more open call would be too many.
func (g *Gate) tooManyOpenLocked() bool {
	return g.cfg.maxOpen > 0 && g.openLocked() >= g.cfg.maxOpen
}

// passTooManyAndUnlock admits a call above the bound of open calls, in a dry run, and counts
// it as refused.
func (g *Gate) passTooManyAndUnlock(ctx context.Context, call Call, c turn.Call) (Permit, error) {
	now, counted := g.now(), call.quota == wouldFail // the quota has counted it
	s := g.inFlight.load()
	pressed := s.inFlight()+c.Cost > s.limit()
	cost := g.inFlight.chargeBeyond(c.Cost)
	g.inFlight.add(cost)
	got := g.holdLocked(c, cost, now)
	g.enterLocked(ctx, call, &got, now)
	if !counted {
		g.countRefusedLocked(ctx, call, TooManyOpen, nil)
	}
	hooks := g.hooksLocked()
	g.mu.Unlock()
	g.holding(got, func() {
		if !counted {
			hooks.refused(ctx, call, TooManyOpen, 0)
		}
	})
	return Permit{gate: g, start: now, claim: got, pressed: pressed}, nil
}
