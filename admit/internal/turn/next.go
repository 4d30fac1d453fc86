package turn

import "time"

// progress is how many permits other classes get for each permit of a class that
// waits, at the most, whatever the priorities.
const progress = 20

// Next returns the call that is served next and what it is charged, or nil if no
// waiting call may hold permits now. If they are not all free, the call waits
// for them and blocks the others. Otherwise expensive calls would starve.
func (q *Queue) Next(r Room) (w *Waiter, cost int) {
	if w = q.next(r); w != nil {
		cost = q.charge(w.tenant, w.Cost, r)
	}
	return w, cost
}

// next chooses a class: first one that was passed over too often, then one that
// is below its guaranteed share, then the one with the highest priority. Of
// classes of the same priority it is the one whose call waits longest.
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
		turn := 0
		switch {
		case l.passed >= progress*cost:
			turn = 2
		case l.short(cost, q.guaranteed(c, r.Limit)):
			turn = 1
		}
		if best == nil || turn > bestTurn ||
			turn == bestTurn && !q.outranks(best.tenant.line, l) && sooner(w, best) {
			best, bestTurn = w, turn
		}
	}
	return best
}

// searched bounds the search for a tenant that may hold permits.
const searched = 64

// first returns the call of a class that is served next: the oldest of the
// tenant that holds the least, of those that may hold more.
func (q *Queue) first(l *line, r Room) (w *Waiter, cost int) {
	may := func(t *Tenant) bool {
		cost = q.charge(t, t.calls.first.Cost, r)
		return q.mayHold(t, cost, r)
	}
	if t := l.needy.tenants[0]; may(t) {
		return t.calls.first, cost
	}
	var best *Tenant
	for _, t := range l.needy.tenants[1:min(searched, len(l.needy.tenants))] {
		if (best == nil || l.needy.before(t, best)) && may(t) {
			best = t
		}
	}
	if best == nil {
		return nil, 0
	}
	return best.calls.first, q.charge(best, best.calls.first.Cost, r)
}

// short reports whether a class below its share gets permits for that reason:
// they fit the share, or the other classes have had their part since it last got
// more at once than its share.
func (l *line) short(cost, share int) bool {
	return l.held < share && (l.held+cost <= share || l.debt == 0)
}

// Serve takes a waiting call out of the queue and lets it run at a cost. It
// returns what Hold does.
func (q *Queue) Serve(w *Waiter, cost int, r Room) *Tenant {
	t, c := w.tenant, Call{Class: w.Class, Tenant: w.tenant.key}
	q.count(t.line, cost, r.Limit)
	t.line.owe(t, cost, max(1, q.most(t.line.class, r.Limit)/t.line.active()))
	holder := q.Hold(c, cost, r)
	q.Remove(w, r)
	t.line.served++
	return holder
}

// count notes that a class gets permits that others waited for.
func (q *Queue) count(served *line, permits, limit int) {
	for _, c := range q.order {
		l := &q.lines[c]
		l.passed += permits
		if l != served {
			l.debt = max(0, l.debt-permits)
		}
	}
	served.passed, served.placed = 0, 0
	share := q.guaranteed(served.class, limit)
	if served.held < share && served.held+permits > share {
		// So that it has its share on the mean.
		served.debt = (served.held + permits - share) * limit / share
	}
}

// TooLate reports whether a call whose turn it is cannot end in time, if it takes
// at least so long. Once in a while such a call is tried nevertheless, so that a
// wrong guess is found out.
//
// While the queue stands, a call that has waited for longer than the time that is
// left for it is too late as well. Otherwise each call would get its permit just
// before its deadline, and none would end in time.
func (q *Queue) TooLate(w *Waiter, least time.Duration, r Room) bool {
	l := &q.lines[w.Class]
	switch left := w.Deadline - r.Now; {
	case w.Deadline == 0, w.Trial:
		return false
	case left <= least:
		return !l.tries()
	default:
		return l.state.stands && r.Now-w.Since > left
	}
}
