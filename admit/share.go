package admit

// progress is how many permits others get for each that a class gets which waits,
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
		case l.passed >= progress*cost:
			turn = 2
		case l.short(cost, g.cfg.classes.guaranteed(c, limit)):
			turn = 1
		}
		if best == nil || turn > bestTurn || turn == bestTurn && priority == bestPriority && l.sooner(best.tenant.line) {
			best, bestTurn, bestPriority = w, turn, priority
		}
	}
	return best
}

// short reports whether a class that has not its share is to get so many permits for that:
// they fit it, or others have had theirs since the last that did not.
func (l *line) short(cost, share int) bool {
	return l.held < share && (l.held+cost <= share || l.debt == 0)
}

// mayHoldLocked reports whether a class may have so many permits more.
func (g *Gate) mayHoldLocked(l *line, cost, limit int) bool {
	if l.held == 0 || !g.cfg.classes.bounded(l.class) {
		return true
	}
	return l.held+cost <= g.cfg.classes.most(l.class, limit)
}

// servedLocked counts that a waiting call of a line gets its permits.
func (g *Gate) servedLocked(served *line, permits int) {
	for _, c := range g.cfg.classes.order[:g.cfg.classes.n] {
		l := &g.queue.lines[c]
		l.passed += permits
		if l != served {
			l.debt = max(0, l.debt-permits)
		}
	}
	served.passed, served.placed = 0, 0
	limit := g.load().limit()
	if share := g.cfg.classes.guaranteed(served.class, limit); served.held < share && served.held+permits > share {
		served.debt = (served.held + permits - share) * limit / share // so that it has its share on the mean
	}
}

// oweLocked counts that a waiting call of a tenant gets its permits.
func (g *Gate) oweLocked(t *tenant, permits int) {
	most := g.cfg.classes.most(t.line.class, g.load().limit())
	t.line.owe(t, permits, max(1, most/t.line.active()))
}

// makeRoomLocked makes room for a call that comes to a full queue, or says why not.
func (g *Gate) makeRoomLocked(c Call, capacity int) (why Reason, ok bool) {
	out, why := g.victimLocked(c, capacity)
	if out == nil {
		return why, false
	}
	if own := &g.queue.lines[c.Class]; g.outranksLocked(out.tenant.line, own) {
		own.placed = own.passed // not again and again, if it does not stay
	}
	g.refuseLocked(out, why)
	return 0, true
}

// victimLocked decides who is refused, and why, because a queue is full to which
// call c comes: a waiting call or, if that is nil, c itself.
func (g *Gate) victimLocked(c Call, capacity int) (*waiter, Reason) {
	own, roomy := &g.queue.lines[c.Class], capacity >= roomy
	if g.crowdedLocked(c.Class, capacity) {
		return g.victimWithinLocked(c, capacity)
	}
	// A roomy queue spares the last waiting call of each other class.
	spared := func(l *line) bool { return l != own && roomy && l.n == 1 }
	owed := g.owedLocked(own, own.held+own.wants, own.n, capacity)
	from := g.lowestLocked(func(l *line) bool {
		if l == own {
			return !owed
		}
		return !spared(l) && !g.withinShareLocked(l, capacity)
	})
	if from == nil && owed { // as are all others: then it is as if nobody were
		owed = false
		from = g.lowestLocked(func(l *line) bool { return !spared(l) })
	}
	switch {
	case from == nil:
		return nil, QueueFull
	case from == own:
		return g.victimWithinLocked(c, capacity)
	case owed, g.outranksLocked(own, from), !g.outranksLocked(from, own) && g.cfg.queue.Policy == DropOldest:
	case roomy && own.n == 0 && own.passed-own.placed >= progress: // from is above it
	default:
		return nil, g.blameLocked(c, capacity, QueueFull)
	}
	return from.heaviest().calls.first, Displaced
}

// lowestLocked returns the line of the lowest priority in which calls wait and
// that may be taken, or nil. Of several it is the one whose call has waited longest.
func (g *Gate) lowestLocked(may func(*line) bool) (lowest *line) {
	t := &g.cfg.classes
	for i := t.n - 1; i >= 0; i-- {
		l := &g.queue.lines[t.order[i]]
		if lowest != nil && g.outranksLocked(l, lowest) {
			break
		}
		if l.n > 0 && may(l) && (lowest == nil || l.heaviest().calls.first.seq < lowest.heaviest().calls.first.seq) {
			lowest = l
		}
	}
	return lowest
}

func anyLine(*line) bool { return true }

// owedLocked reports whether a class that has, or waits for, so many permits, in so
// many places of the queue, has less than its share.
func (g *Gate) owedLocked(l *line, permits, places, capacity int) bool {
	t := &g.cfg.classes
	return t.counted && (permits < t.guaranteed(l.class, g.load().limit()) || places < t.guaranteed(l.class, capacity))
}

// withinShareLocked reports whether a class would not have its share if the call
// were refused that is the first to make room.
func (g *Gate) withinShareLocked(l *line, capacity int) bool {
	return g.owedLocked(l, l.held+l.wants-l.heaviest().calls.first.cost, l.n-1, capacity)
}

// victimWithinLocked is victimLocked within a class: the tenant that takes the
// most makes room. Who else takes as much is the policy's to say.
func (g *Gate) victimWithinLocked(c Call, capacity int) (*waiter, Reason) {
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
			return nil, g.blameLocked(c, capacity, QueueFull)
		}
		return t.calls.first, g.blameLocked(c, capacity, Displaced)
	case weight == w && reject:
		return nil, QueueFull
	case weight == w:
		return heaviest.calls.first, Displaced
	default:
		return heaviest.calls.first, g.overShareLocked(c, w, capacity, Displaced)
	}
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
	room := g.cfg.classes.most(c.Class, g.load().limit()) + g.cfg.classes.most(c.Class, capacity)
	if tenants > 1 && weight*tenants > room {
		return OverShare
	}
	return otherwise
}
