package admit

// Drain refuses every waiter and every later call because of [Draining]. Running calls
// finish. It does not block and cannot be undone. Call it before
// grpc.Server.GracefulStop, which would wait for the whole queue.
func (g *Gate) Drain() {
	g.mu.Lock()
	first, log, name := !g.draining, g.cfg.log, g.cfg.name
	waiting := g.drainLocked()
	g.mu.Unlock()
	if first {
		log.drained(name, waiting)
	}
}

// drainLocked returns the number of waiters that it refused.
func (g *Gate) drainLocked() (waiting int) {
	g.draining = true
	if g.isZero() {
		return 0
	}
	now, q := g.clock.now(), g.permits.queue
	waiting = q.Len()
	for w := q.Any(); w != nil; w = q.Any() {
		g.refuseWaiterLocked(waiterOf(w), Draining, now)
	}
	g.useLockLocked()
	return waiting
}
