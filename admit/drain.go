package admit

// Drain refuses every waiter and every later call because of [Draining]. Running calls
// finish. It does not block and cannot be undone. Call it before
// grpc.Server.GracefulStop, which would wait for the whole queue.
func (g *Gate) Drain() {
	g.mu.Lock()
	first, waiting, log, name := !g.draining, g.waitersLocked(), g.cfg.log, g.cfg.name
	g.drainLocked()
	g.mu.Unlock()
	if first {
		log.drained(name, waiting)
	}
}

func (g *Gate) waitersLocked() int {
	if g.isZero() {
		return 0
	}
	return g.turns.Len()
}

func (g *Gate) drainLocked() {
	g.draining = true
	if g.isZero() {
		return
	}
	now := g.now()
	for w := g.turns.Any(); w != nil; w = g.turns.Any() {
		g.refuseWaiterLocked(waiterOf(w), Draining, now)
	}
	g.useLockLocked()
}
