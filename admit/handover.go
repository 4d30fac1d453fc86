package admit

import "time"

// giveBack returns permits: to the next waiter, if there is one.
func (g *Gate) giveBack(c claim, now time.Duration) {
	for c.holder == nil {
		s := g.load()
		if s.slow() {
			break
		}
		if g.swap(s, s.plus(-c.cost)) {
			return
		}
	}
	g.mu.Lock()
	g.giveBackLocked(c, now)
	g.mu.Unlock()
}

func (g *Gate) giveBackLocked(c claim, now time.Duration) {
	g.addLocked(-c.cost)
	if c.holder != nil {
		g.turns.Return(c.holder, c.cost, g.room(g.load(), now))
	}
	g.dispatchLocked(now)
}

// dispatchLocked hands free permits to waiters. The next one may cost more than
// is free: then it waits for its permits, and all others behind it.
func (g *Gate) dispatchLocked(now time.Duration) {
	for g.turns.Len() > 0 {
		s := g.load()
		if !s.free() {
			break
		}
		r := g.room(s, now)
		next, cost := g.turns.Next(r)
		if next == nil {
			break
		}
		w := waiterOf(next)
		switch {
		case g.turns.TooLate(next, g.least.of(classOf(w.Class), now), r):
			g.refuseLocked(w, DeadlineTooClose, now)
		case s.inFlight()+cost > s.limit():
			return
		default:
			g.grantLocked(w, cost, now)
		}
	}
	g.settleLocked()
}

// grantLocked gives w its permits. Its latency counts from here: the time that
// its goroutine takes to wake up is part of what they are held for.
func (g *Gate) grantLocked(w *waiter, cost int, now time.Duration) {
	g.addLocked(cost)
	holder := g.turns.Serve(&w.Waiter, cost, g.room(g.load(), now))
	w.claim = claim{cost: cost, class: classOf(w.Class), holder: holder, begun: g.begin(g.load().inFlight())}
	w.granted = now
	w.ready <- nil
}

// settleLocked lets calls past the lock again if nothing needs them at it.
func (g *Gate) settleLocked() {
	slow := g.turns.Len() > 0 || g.draining || g.cfg.dryRun || g.turns.Counted() || g.cfg.refuseIf != nil
	for {
		s := g.load()
		if s.slow() == slow || g.swap(s, s.withSlow(slow)) {
			return
		}
	}
}
