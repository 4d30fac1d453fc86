package turn

import "time"

// wait estimates the shortest time that a newcomer waits. It returns 0 while the pace is
// not known.
func (q *Queue) wait(c Call, r Room) time.Duration {
	if r.Pace == 0 {
		return 0
	}
	own := &q.lines[c.Class]
	before, above := own.before(q.find(c.Class, c.Tenant)), 0
	for _, i := range q.order {
		other := &q.lines[i]
		if other != own && !q.outranks(own, other) && q.lineMayHold(other, 1, r) {
			above += other.wants
		}
	}
	// The calls above it are not served alone. Its class gets one permit in progress,
	// and its share.
	above = min(above, before*progress+max(0, progress*c.Cost-own.passed))
	turns := above + before
	if share := q.guaranteed(c.Class, r.Limit); share > 0 {
		beyond := max(0, own.held+before+c.Cost-share)
		turns = min(turns, max(before, beyond*r.Limit/share))
	}
	return time.Duration(turns) * r.Pace
}

// before estimates the permits that the waiters of a line get before a new call of a
// tenant. The tenant is nil if it has no calls. Tenants take turns, and the tenant that
// holds the fewest permits is first.
func (l *line) before(t *Tenant) int {
	held, waiting := 0, 0
	if t != nil {
		held, waiting = t.held, t.calls.n
	}
	switch {
	case l.n == 0:
		return 0
	case held+waiting < l.needy.tenants[0].held:
	default:
		waiting = min(l.n, (waiting+1)*len(l.needy.tenants))
	}
	return waiting * l.wants / l.n
}

// ownWait reports whether a newcomer would wait longer than its patience for permits that
// its own tenant holds.
func (q *Queue) ownWait(c Call, r Room, patience time.Duration) bool {
	t := q.find(c.Class, c.Tenant)
	if t == nil || t.key == "" || t.held == 0 || patience == 0 ||
		q.tenantMayHold(t, q.charge(t, c.Cost, r), r) {
		return false
	}
	mean := t.usage.mean(r.Now, t.held)
	return mean/time.Duration(t.held)*time.Duration(t.wants+c.Cost) > patience
}
