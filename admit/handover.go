package admit

import "time"

// giveBack returns the permits of a call, to the next waiter if there is one.
func (g *Gate) giveBack(c claim, now time.Duration) {
	if c.holder == nil && c.listed == nil && g.inFlight.giveBack(c.cost) {
		return
	}
	g.mu.Lock()
	if c.listed != nil {
		g.record.running.leave(c.listed)
	}
	g.permits.giveBack(c, now)
	g.dispatchLocked(now)
	g.mu.Unlock()
}

// dispatchLocked hands free permits to waiters. The head of the queue waits until its
// full cost is free and blocks the waiters behind it.
func (g *Gate) dispatchLocked(now time.Duration) {
	q := g.permits.queue
	for q.Len() > 0 {
		s := g.inFlight.load()
		if !s.free() {
			break
		}
		r := g.permits.room(s, now)
		next, cost := q.Next(r)
		if next == nil {
			break
		}
		w := waiterOf(next)
		class := w.call.Class
		why, sheds := g.shedder.Load().refuse(class)
		switch {
		case sheds:
			g.refuseWaiterLocked(w, why, now)
		case q.TooLate(next, g.record.shortest.of(class, now), g.record.late.are(class), r):
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
	w.claim, w.granted = g.permits.serve(&w.Waiter, cost, now), now
	g.record.enter(&w.claim, w.call, now, w.Deadline)
	w.verdict <- nil
}

// grantAllLocked admits every waiter regardless of the limit, for a dry run.
func (g *Gate) grantAllLocked(now time.Duration) {
	n := g.Limit()
	for w := g.permits.queue.Any(); w != nil; w = g.permits.queue.Any() {
		g.grantLocked(waiterOf(w), g.inFlight.chargeBeyond(min(w.Cost, n)), now)
	}
}

// refuseWaiterLocked removes w from the queue and refuses it.
func (g *Gate) refuseWaiterLocked(w *waiter, why Reason, now time.Duration) {
	g.permits.queue.Remove(&w.Waiter, g.permits.roomNow(now))
	w.verdict <- g.record.refuseWaiter(w, why, now)
}

// refuseExcessLocked refuses the waiters that have no place any more.
func (g *Gate) refuseExcessLocked(now time.Duration) {
	n := g.Limit()
	for w := g.permits.queue.Excess(n); w != nil; w = g.permits.queue.Excess(n) {
		g.refuseWaiterLocked(waiterOf(w), Evicted, now)
	}
}

// useLockLocked sets the lock bit if calls must take the lock, and clears it otherwise.
func (g *Gate) useLockLocked() {
	always := g.draining || g.cfg.dryRun || g.cfg.refuseIf != nil || g.cfg.maxOpen > 0 || g.record.running.on
	g.inFlight.setMustLock(always || g.permits.queue.Len() > 0 || g.permits.queue.Counted())
}
