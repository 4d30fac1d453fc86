package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// passAndUnlock admits a call that found no permit free, in a dry run, and counts it
// as a call that would have waited or been refused. The calls beyond the limit, or beyond
// the bound of a class, stand for the waiters. Each of them is assumed to cost as much as
// this call.
func (g *Gate) passAndUnlock(ctx context.Context, call Call, c turn.Call, now time.Duration, pressed bool) (Permit, error) {
	counted := call.quota == wouldFail // the quota has counted the call as refused
	full := !counted && g.turns.FullOf(c, g.roomLocked(g.inFlight.load(), now))
	cost := g.inFlight.chargeBeyond(c.Cost)
	g.inFlight.add(cost)
	got := g.holdLocked(c, cost, now)
	g.enterLocked(ctx, call, &got, now)
	if full {
		g.countRefusedLocked(ctx, call, QueueFull, nil)
	}
	hooks := g.hooksLocked()
	g.mu.Unlock()
	g.holding(got, func() {
		switch {
		case counted:
		case full:
			hooks.refused(ctx, call, QueueFull, 0)
		default:
			g.countWaited(ctx, call, 0)
		}
	})
	return Permit{gate: g, start: now, claim: got, pressed: pressed}, nil
}

// admitWaitersLocked admits every waiter regardless of the limit.
func (g *Gate) admitWaitersLocked(now time.Duration) {
	n := g.Limit()
	for w := g.turns.Any(); w != nil; w = g.turns.Any() {
		g.grantLocked(waiterOf(w), g.inFlight.chargeBeyond(min(w.Cost, n)), now)
	}
}
