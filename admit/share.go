package admit

// progress is after how many permits for others a class that waits gets one,
// whatever its priority and theirs.
const progress = 20

// roomy is the capacity from which on a queue keeps a place for each class, so
// that the lower ones are there when their turn comes.
const roomy = 2 * MaxClasses

// nextLocked returns who is served next when permits are free, and nil if nobody
// may have one: in this order a class that has been passed too often, one that
// has not its share, and the one of the highest priority.
func (g *Gate) nextLocked(limit int) *waiter {
	capacity := g.cfg.capacity(limit)
	var best *waiter
	bestTurn, bestPriority := 0, 0
	for _, c := range g.cfg.classes.order[:g.cfg.classes.n] {
		l := &g.queue.lines[c]
		if l.n == 0 {
			continue
		}
		w := l.next(g.newestFirst(g.upToLocked(l), capacity))
		cost := min(w.cost, limit)
		if !g.mayHoldLocked(l, cost, limit) {
			continue
		}
		turn, priority := 0, g.cfg.classes.priority(c)
		switch {
		case l.passed >= progress:
			turn = 2
		case g.cfg.classes.counted && l.held+cost <= g.cfg.classes.guaranteed(c, limit):
			turn = 1
		}
		if best == nil || turn > bestTurn || turn == bestTurn && priority == bestPriority && l.before(best.tenant.line) {
			best, bestTurn, bestPriority = w, turn, priority
		}
	}
	return best
}

// mayHoldLocked reports whether a class may have so many permits more.
func (g *Gate) mayHoldLocked(l *line, cost, limit int) bool {
	if l.held == 0 || !g.cfg.classes.bounded(l.class) {
		return true
	}
	return l.held+cost <= g.cfg.classes.most(l.class, limit)
}

// servedLocked counts that a waiting call of a line got a permit.
func (g *Gate) servedLocked(served *line) {
	for _, c := range g.cfg.classes.order[:g.cfg.classes.n] {
		g.queue.lines[c].passed++
	}
	served.passed, served.placed = 0, 0
}

// makeRoomLocked decides who is refused because a queue is full to which call c
// comes: a waiting call, which is refused, or, if it returns false, c itself.
func (g *Gate) makeRoomLocked(c Call, capacity int) (why Reason, ok bool) {
	own := &g.queue.lines[c.Class]
	from := g.lowestLocked(capacity >= roomy, own)
	switch from {
	case nil:
		return QueueFull, false
	case own:
		return g.shareRoomLocked(c, capacity)
	}
	higher := g.cfg.classes.priority(from.class) - g.cfg.classes.priority(c.Class)
	switch {
	case higher < 0, higher == 0 && g.cfg.queue.Policy == DropOldest:
	case higher > 0 && capacity >= roomy && own.n == 0 && own.passed-own.placed >= progress:
		own.placed = own.passed // not again and again, if it does not stay
	default:
		return g.blameLocked(c, capacity, QueueFull), false
	}
	g.refuseLocked(from.heaviest().calls.first, Displaced)
	return 0, true
}

// lowestLocked returns the line that makes room, of the lowest priority that
// waits, or nil. With spare, the last waiting call of a class other than the
// newcomer's is spared.
func (g *Gate) lowestLocked(spare bool, own *line) *line {
	t := &g.cfg.classes
	for i := t.n - 1; i >= 0; i-- {
		l := &g.queue.lines[t.order[i]]
		if l.n > 1 || l.n == 1 && (!spare || l == own) {
			return l
		}
	}
	return nil
}

// shareRoomLocked is makeRoomLocked within a class: the tenant that takes the
// most makes room. Who else takes as much is the policy's to say.
func (g *Gate) shareRoomLocked(c Call, capacity int) (why Reason, ok bool) {
	l := &g.queue.lines[c.Class]
	heaviest, t := l.heaviest(), g.queue.find(c.Class, c.Tenant)
	weight := c.Cost
	if t != nil {
		weight += t.weight()
	}
	reject := g.cfg.queue.Policy == Reject
	switch w := heaviest.weight(); {
	case t == heaviest, weight > w:
		if reject || t == nil || t.calls.n == 0 {
			return g.blameLocked(c, capacity, QueueFull), false
		}
		g.refuseLocked(t.calls.first, g.blameLocked(c, capacity, Displaced))
	case weight == w && reject:
		return QueueFull, false
	case weight == w:
		g.refuseLocked(heaviest.calls.first, Displaced)
	default:
		g.refuseLocked(heaviest.calls.first, g.overShareLocked(c, w, capacity, Displaced))
	}
	return 0, true
}

// blameLocked returns OverShare if the tenant of a call has, with it, more than
// its share, and otherwise the other reason.
func (g *Gate) blameLocked(c Call, capacity int, otherwise Reason) Reason {
	weight := c.Cost
	if t := g.queue.find(c.Class, c.Tenant); t != nil {
		weight += t.weight()
	}
	return g.overShareLocked(c, weight, capacity, otherwise)
}

// overShareLocked returns OverShare if so much is more than a tenant's share of
// what a class can have when a call comes, and otherwise the other reason.
func (g *Gate) overShareLocked(c Call, weight, capacity int, otherwise Reason) Reason {
	tenants := g.queue.lines[c.Class].active()
	if t := g.queue.find(c.Class, c.Tenant); t == nil || t.idle() {
		tenants++
	}
	if room := g.cfg.classes.most(c.Class, g.load().limit()) + capacity; tenants > 1 && weight*tenants > room {
		return OverShare
	}
	return otherwise
}
