package turn

import "time"

// wait estimates the shortest time that a newcomer waits. It returns 0 while the pace is
// not known.
func (q *Queue) wait(c Call, r Room) time.Duration {
	if r.Pace == 0 {
		return 0
	}
	own := &q.lines[c.Class]
	before, above := own.before(q.find(c.Class, c.Tenant)), int64(0)
	for _, i := range q.order {
		other := &q.lines[i]
		if other != own && !q.outranks(own, other) && q.lineMayHold(other, 1, r) {
			above += other.wants
		}
	}
	// The calls above it are not served alone. Its class gets one permit in progress,
	// and its share.
	cost := int64(c.Cost)
	above = min(above, before*progress+max(0, progress*cost-own.passed))
	turns := above + before
	if share := int64(q.guaranteed(c.Class, r.Limit)); share > 0 {
		beyond := max(0, int64(own.held)+before+cost-share)
		turns = min(turns, max(before, beyond*int64(r.Limit)/share))
	}
	return time.Duration(min(turns, manyPermits)) * r.Pace
}

// before estimates the permits that the waiters of a line get before a new call of a
// tenant. The tenant is nil if it has no calls. Tenants take turns, and the tenant that
// holds the fewest permits is first.
func (l *line) before(t *Tenant) int64 {
	held, waiting := 0, 0
	if t != nil {
		held, waiting = t.held, t.calls.n
	}
	switch {
	case l.n == 0:
		return 0
	case held+waiting < l.neediest().held:
	default:
		waiting = min(l.n, (waiting+1)*len(l.heavy.tenants))
	}
	return int64(waiting) * l.wants / int64(l.n)
}

// boundWait reports whether a newcomer would wait longer than its patience for the bound of its
// tenant.
func (q *Queue) boundWait(c Call, r Room, patience time.Duration) bool {
	t := q.find(c.Class, c.Tenant)
	if t == nil || patience == 0 || q.tenantMayHold(t, q.charge(t, c.Cost, r), r) {
		return false
	}
	cost, b := int64(c.Cost), t.bound()
	before := t.wants
	if others := t.needy().tenants; t.kind == long && len(others) > 0 && others[0].held <= t.held+t.calls.n {
		before = min(b.wants, (t.wants+cost)*int64(len(others))) // tenants take turns
	}
	return b.mean(r.Now)/time.Duration(b.held)*time.Duration(before+cost) > patience
}
