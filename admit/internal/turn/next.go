package turn

import "time"

// progress bounds the permits that other classes get for each permit of a class with
// waiters, whatever the priorities.
const progress = 20

// Next returns the head of the queue and the cost charged to it, or nil if no waiter may
// hold permits now. The head waits until its full cost is free and blocks the waiters
// behind it. Otherwise expensive calls would starve.
func (q *Queue) Next(r Room) (w *Waiter, cost int) {
	if w = q.next(r); w == nil {
		return nil, 0
	}
	cost = q.charge(w.tenant, w.Cost, r)
	if r.InFlight+cost > r.Limit {
		l := w.tenant.line
		l.block(w, cost, r.Limit-r.InFlight-q.part(l, r.Limit), r.Now)
	}
	return w, cost
}

// The turns of classes, the first last.
const (
	byPriority = iota
	passedOver // too often
	belowShare
	starving // passed over too often, and it holds next to nothing
)

// turnOf returns the turn of a class whose next call has a cost. A class that was passed over
// too often comes before a class below its share only while it holds fewer permits than it has
// to get. Otherwise its calls, if they are long, would hold the permits of the share.
func (q *Queue) turnOf(l *line, cost int, r Room) int {
	passed := l.passed >= progress*int64(cost)
	switch {
	case passed && int64(l.held)*progress < int64(r.Limit):
		return starving
	case l.short(cost, q.guaranteed(l.class, r.Limit)):
		return belowShare
	case passed:
		return passedOver
	}
	return byPriority
}

// next chooses a class by its turn, then by its priority. Among classes of the same priority,
// the oldest waiter decides.
func (q *Queue) next(r Room) *Waiter {
	var best *Waiter
	bestTurn := 0
	for _, c := range q.order {
		l := &q.lines[c]
		if l.n == 0 {
			continue
		}
		w, cost := q.first(l, r)
		if w == nil {
			continue
		}
		turn := q.turnOf(l, cost, r)
		if best == nil || turn > bestTurn ||
			turn == bestTurn && !q.outranks(best.tenant.line, l) && sooner(w, best) {
			best, bestTurn = w, turn
		}
	}
	return best
}

// searched bounds the tenants that are examined for one that may hold permits. Only tenants that
// are not known have bounds of their own.
const searched = 64

// first returns the waiter of a class that is served next, and its cost, or nil if the class
// may not hold the permits. The waiters behind it may not hold them either, or a call of
// more than one permit would starve at the bound of its class.
func (q *Queue) first(l *line, r Room) (w *Waiter, cost int) {
	if w, cost = q.head(l, r); w == nil {
		return nil, 0
	}
	if !q.lineMayHold(l, cost, r) {
		l.block(w, cost, 0, r.Now)
		return nil, 0
	}
	return w, cost
}

// block notes that the head of a class does not find its permits free, and how many of them,
// beyond an equal part, stay idle for it.
func (l *line) block(w *Waiter, cost, idle int, now time.Duration) {
	if cost == 1 {
		return
	}
	if l.blocked != w {
		l.unblock()
		l.blocked, l.idleAt = w, now
	}
	l.seeIdle(now)
	l.idle = max(0, idle)
}

// seeIdle updates the time for which permits stayed idle.
func (l *line) seeIdle(now time.Duration) {
	l.idled, l.idleAt = addTime(l.idled, max(0, now-l.idleAt), l.idle), now
}

// take notes that permits went to a call, so that they do not count as idle any more.
func (q *Queue) take(permits int, now time.Duration) {
	for c := range q.lines {
		if l := &q.lines[c]; l.blocked != nil {
			l.seeIdle(now)
			l.idle = max(0, l.idle-permits)
		}
	}
}

// unblock notes that the blocked head leaves.
func (l *line) unblock() { l.blocked, l.idle, l.idled = nil, 0, 0 }

// manyPermits bounds numbers of permits, so that products do not overflow.
const manyPermits = 1 << 28

// wasted returns the permits that calls of its class could have had while permits stayed idle
// for a waiter.
func (l *line) wasted(w *Waiter, now time.Duration) int64 {
	if l.blocked != w {
		return 0
	}
	l.seeIdle(now)
	return int64(min(l.idled/max(1, l.mean(now)), manyPermits))
}

// part returns an equal part of the permits of a class.
func (q *Queue) part(l *line, limit int) int { return max(1, q.most(l.class, limit)/l.active()) }

// head returns the head of a class and its cost, or nil if no tenant may hold more permits. It
// is the oldest waiter of the tenant that holds the fewest permits and may hold more. Among
// tenants that hold as few, a waiter that did not find its permits free stays the head. Long
// tenants wait behind the first of them, as classes do at their bound.
func (q *Queue) head(l *line, r Room) (w *Waiter, cost int) {
	if l.n == 0 {
		return nil, 0
	}
	may := func(t *Tenant) bool { return q.tenantMayHold(t, q.charge(t, t.calls.first.Cost, r), r) }
	best := l.neediest()
	if b := l.blocked; b != nil && b.tenant.held <= best.held && may(b.tenant) {
		best = b.tenant
	} else if !may(best) {
		best = l.search(may)
	}
	if best == nil {
		return nil, 0
	}
	return best.calls.first, q.charge(best, best.calls.first.Cost, r)
}

// search returns the first tenant by need of the tenants with waiters that may hold permits.
func (l *line) search(may func(*Tenant) bool) (best *Tenant) {
	for k := range l.needy {
		r, n := &l.needy[k], 1
		if kind(k) == unknown {
			n = searched
		}
		for _, t := range r.tenants[:min(n, len(r.tenants))] {
			if (best == nil || r.before(t, best)) && may(t) {
				best = t
			}
		}
	}
	return best
}

// short reports whether a class gets permits because it is below its share. A call that
// costs more than the rest of the share has to wait until the class has no debt.
func (l *line) short(cost, share int) bool {
	return l.held < share && (l.held+cost <= share || l.debt == 0)
}

// Serve removes a waiter from the queue and counts its permits. It returns the tenant
// that holds them, as Hold does.
func (q *Queue) Serve(w *Waiter, cost int, r Room) *Tenant {
	t, c := w.tenant, Call{Class: w.Class, Tenant: w.tenant.key}
	q.count(t.line, cost, r.Limit)
	t.line.owe(w, cost, q.part(t.line, r.Limit), r)
	if t.line.blocked == w {
		t.line.unblock()
	}
	holder := q.Hold(c, cost, r)
	q.Remove(w, r)
	t.line.served++
	return holder
}

// count notes that a class gets permits while other classes wait.
func (q *Queue) count(served *line, permits, limit int) {
	for _, c := range q.order {
		l := &q.lines[c]
		l.passed += int64(permits)
		if l != served {
			l.debt = max(0, l.debt-int64(permits))
		}
	}
	served.passed, served.placed = 0, 0
	share := q.guaranteed(served.class, limit)
	if served.held < share && served.held+permits > share {
		// The class pays for permits beyond its share, so that its mean is the share.
		served.debt = int64(served.held+permits-share) * int64(limit) / int64(share)
	}
}

// TooLate reports whether the head of the queue is too late to be served, if its call
// takes at least the time least. One in several such calls stays and is served anyway, to test
// the guess.
//
// While the queue stands, while calls of its class that waited end late, and while none has
// succeeded of late (least is 0), a call is also too late if it has waited for longer than
// the time it has left. Otherwise every call would get its permit just before its deadline,
// and none would end in time.
func (q *Queue) TooLate(w *Waiter, least time.Duration, late bool, r Room) bool {
	l := &q.lines[w.Class]
	switch left := w.Deadline - r.Now; {
	case w.Deadline == 0, w.Trial:
		return false
	case left <= least:
		w.Trial = l.tries()
		return !w.Trial
	default:
		return (l.state.stands || late || least == 0) && r.Now-w.Since > left
	}
}
