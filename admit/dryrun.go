package admit

import (
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// passAndUnlock lets a call in that found no permit free, in a dry run, and
// counts what would have become of it. Calls beyond the limit, or beyond the
// bound of their class, stand for calls that would wait, as if each cost as much
// as this one. A call over its quota has been counted already.
func (g *Gate) passAndUnlock(c turn.Call, now time.Duration, pressed, counted bool) (Permit, error) {
	s, class := g.load(), classOf(c.Class)
	full := !counted && g.turns.FullOf(c, g.room(s, now))
	cost := g.beyondLocked(c.Cost)
	g.addLocked(cost)
	got := g.holdLocked(c, cost, now)
	if full {
		g.totals.refused[class][QueueFull]++
	}
	hooks := g.cfg.hooks
	g.mu.Unlock()
	g.holding(got, func() {
		switch {
		case counted:
		case full:
			g.tellRefused(hooks, class, QueueFull, 0)
		default:
			g.countWaited(class, 0)
		}
	})
	return Permit{gate: g, start: now, claim: got, pressed: pressed}, nil
}

// beyondLocked returns the cost charged to a call that is admitted regardless of
// the limit.
func (g *Gate) beyondLocked(cost int) int {
	if g.load()&inFlight > manyInFlight { // as a word: it may be more than a 32-bit int
		return 1
	}
	return cost
}

// releaseWaitersLocked lets every waiter in, whatever the limit.
func (g *Gate) releaseWaitersLocked(now time.Duration) {
	n := g.load().limit()
	for w := g.turns.Any(); w != nil; w = g.turns.Any() {
		g.grantLocked(waiterOf(w), g.beyondLocked(min(w.Cost, n)), now)
	}
}
