package admit

import "time"

// giveBack returns the permits of a call, to the next waiter if there is one.
func (g *Gate) giveBack(c claim, now time.Duration) {
	if c.holder == nil && c.listed == nil && g.inFlight.giveBack(c.cost) {
		return
	}
	g.mu.Lock()
	g.giveBackLocked(c, now)
	g.mu.Unlock()
}

func (g *Gate) giveBackLocked(c claim, now time.Duration) {
	g.inFlight.add(-c.cost)
	if c.listed != nil {
		g.watch.leave(c.listed)
	}
	if c.holder != nil {
		g.turns.Return(c.holder, c.cost, g.roomLocked(g.inFlight.load(), now))
	}
	g.dispatchLocked(now)
}

// dispatchLocked hands free permits to waiters. The head of the queue waits until its
// full cost is free and blocks the waiters behind it.
func (g *Gate) dispatchLocked(now time.Duration) {
	for g.turns.Len() > 0 {
		s := g.inFlight.load()
		if !s.free() {
			break
		}
		r := g.roomLocked(s, now)
		next, cost := g.turns.Next(r)
		if next == nil {
			break
		}
		w := waiterOf(next)
		why, sheds := g.shedsLocked(Class(w.Class))
		switch {
		case sheds:
			g.refuseWaiterLocked(w, why, now)
		case g.turns.TooLate(next, g.shortest.of(Class(w.Class), now), g.late.are(Class(w.Class)), r):
			g.refuseWaiterLocked(w, DeadlineTooClose, now)
		case s.inFlight()+cost > s.limit():
			return
		default:
			g.grantLocked(w, cost, now)
		}
	}
	g.useLockLocked()
}

// grantLocked admits w. The latency of the call starts here. It includes the time that
// the goroutine takes to wake up, because the permits are held during that time.
func (g *Gate) grantLocked(w *waiter, cost int, now time.Duration) {
	g.inFlight.add(cost)
	s := g.inFlight.load()
	holder := g.turns.Serve(&w.Waiter, cost, g.roomLocked(s, now))
	w.claim = claim{cost: cost, class: Class(w.Class), holder: holder, begun: g.samples.begin(s.inFlight())}
	w.claim.listed = g.watch.enter(w.call, cost, now, w.Deadline)
	w.granted = now
	w.ready <- nil
}

// useLockLocked sets the lock bit if calls must take the lock, and clears it otherwise.
func (g *Gate) useLockLocked() {
	always := g.draining || g.cfg.dryRun || g.cfg.refuseIf != nil || g.cfg.maxOpen > 0 || g.watch.on
	g.inFlight.setMustLock(always || g.turns.Len() > 0 || g.turns.Counted())
}
