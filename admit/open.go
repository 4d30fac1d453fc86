package admit

import "github.com/weir-go/weir/admit/internal/turn"

// maxOpen is the largest bound that WithMaxOpen takes.
const maxOpen = 1 << 30

// WithMaxOpen bounds how many calls are open, from 1 to 2^30. Zero, the default, means no
// bound. A call is open while it waits or holds its permit, when it counts for what it costs,
// and after [Permit.Ready] until Release, when it counts for one.
//
// It is for streams that need a permit only to begin: the limit bounds how many begin at
// once, and this how many there are. A call beyond it is refused with TooManyOpen, whatever
// its class. A lower bound set by [Gate.Update] ends no call. While there is a bound, every
// call takes the gate's lock.
func WithMaxOpen(n int) Option { return option(func(c *config) { c.maxOpen = n }) }

// The states of a Permit.
const (
	held uint32 = iota
	ready
	released
)

// Ready gives the permit back and tells the limit how the call has begun, as Release does, while
// the call goes on. The call stays open (see [WithMaxOpen]) until Release, whose outcome does
// not count then. Ready does not block and is safe for concurrent use. After the first Ready or
// Release it does nothing.
//
//	permit.Ready(admit.Success) // the watch is set up
func (p *Permit) Ready(o Outcome) {
	if p.gate == nil || !p.state.CompareAndSwap(held, ready) {
		return
	}
	p.gate.ready.Add(1) // before its permit is free, or one call too many could open
	p.end(o)
}

// MoveTo hands the permit over to another variable, to. After that p holds nothing. Nothing
// else may use either of them meanwhile.
func (p *Permit) MoveTo(to *Permit) {
	to.gate, to.start, to.claim, to.pressed, to.waited = p.gate, p.start, p.claim, p.pressed, p.waited
	to.state.Store(p.state.Load())
	p.gate = nil
}

// openLocked returns how many calls are open. A call whose Ready is under way may count twice
// for a moment.
func (g *Gate) openLocked() int { return g.load().inFlight() + g.turns.Len() + g.readyCalls() }

// readyCalls returns how many calls go on without a permit.
func (g *Gate) readyCalls() int { return int(max(g.ready.Load(), 0)) }

// crowdedLocked reports whether one more call would be too many.
func (g *Gate) crowdedLocked() bool {
	return g.cfg.maxOpen > 0 && g.openLocked() >= g.cfg.maxOpen
}

// passCrowdedAndUnlock lets a call in that a dry run lets be one too many, and counts that.
func (g *Gate) passCrowdedAndUnlock(c turn.Call, counted bool) (Permit, error) {
	now, class := g.now(), classOf(c.Class)
	pressed := g.load().inFlight()+c.Cost > g.load().limit()
	cost := g.beyondLocked(c.Cost)
	g.addLocked(cost)
	got := g.holdLocked(c, cost, now)
	if !counted {
		g.totals.refused[class][TooManyOpen]++
	}
	hooks := g.cfg.hooks
	g.mu.Unlock()
	g.holding(got, func() {
		if !counted {
			g.tellRefused(hooks, class, TooManyOpen, 0)
		}
	})
	return Permit{gate: g, start: now, claim: got, pressed: pressed}, nil
}
