package turn

import (
	"hash/maphash"
	"time"
)

// Permits of a share are lent only to calls that return them soon. The measure is the gap
// between two permits that come back while borrowers hold all of them. The gap is the
// duration of a call divided by the limit.
const (
	// shareGap is the longest gap with which a guaranteed share is lent.
	shareGap = 10 * time.Millisecond
	// tenantGap is the longest gap with which a tenant may hold all permits, if brief tenants
	// call as well. Otherwise loneGap is.
	tenantGap = 50 * time.Millisecond
	loneGap   = 500 * time.Millisecond
	// shareMemory is how long a share is kept for a class that makes no call.
	shareMemory = time.Minute
	// lastPart is the part of the permits, as 1 in lastPart, that long and unknown
	// tenants leave to tenants that may come.
	lastPart = 8
	// longMemory is how long a class is suspected after a call of a long tenant. The
	// tenant may be gone and come back.
	longMemory = 10 * time.Minute
)

// mayHold reports whether a tenant may hold cost more permits, free or not.
func (q *Queue) mayHold(t *Tenant, cost int, r Room) bool {
	return q.lineMayHold(t.line, cost, r) && q.tenantMayHold(t, cost, r)
}

// lineMayHold reports whether a class may hold cost more permits, free or not. One call of
// it can always run.
func (q *Queue) lineMayHold(l *line, cost int, r Room) bool {
	if l.held == 0 || !q.counted {
		return true
	}
	most := q.most(l.class, r.Limit)
	if !q.brief(l, r) {
		most = min(most, max(q.lineMost(l, r)-q.onLoan(l, r), q.guaranteed(l.class, r.Limit)))
	}
	return most >= r.Limit || l.held+cost <= most
}

// charge returns the cost charged to a call of a tenant. It is bounded by the limit and
// by the permits that the class and the tenant may hold.
func (q *Queue) charge(t *Tenant, cost int, r Room) int {
	if cost == 1 {
		return 1
	}
	most := r.Limit
	if q.counted && !q.brief(t.line, r) {
		most = q.lineMost(t.line, r)
	}
	return max(1, min(cost, most, q.tenantMost(t, r)))
}

// lineMost returns the permits that the shares of the other classes leave to a class.
func (q *Queue) lineMost(l *line, r Room) int {
	most := r.Limit
	for _, c := range q.order {
		if other := &q.lines[c]; other != l && r.Now-other.came <= shareMemory {
			most -= q.guaranteed(c, r.Limit)
		}
	}
	return most
}

// onLoan returns the permits that other classes with long calls hold beyond their shares.
func (q *Queue) onLoan(l *line, r Room) (permits int) {
	for _, c := range q.order {
		if other := &q.lines[c]; other != l && !q.brief(other, r) {
			permits += max(0, other.held-q.guaranteed(c, r.Limit))
		}
	}
	return permits
}

// brief reports whether the calls of a class return permits soon.
func (q *Queue) brief(l *line, r Room) bool {
	return l.usage.mean(r.Now, l.held) <= time.Duration(r.Limit)*shareGap
}

// A kind says how long a tenant holds permits.
type kind uint8

const (
	unknown kind = iota
	brief        // it returns permits soon
	long
)

// holdsLong reports whether a tenant holds its permits for long.
func (t *Tenant) holdsLong(r Room) bool {
	return t.usage.mean(r.Now, t.held) > time.Duration(r.Limit)*tenantGap
}

// classify returns the kind of a tenant when a call of it comes.
func (q *Queue) classify(t *Tenant, r Room) kind {
	switch {
	case t.key == "":
		return brief
	case t.holdsLong(r):
		t.line.sawLong, t.line.longAt = true, r.Now
		return long
	case t.usage.ended == 0:
		return unknown
	}
	return brief
}

// become sets the kind of a tenant.
func (t *Tenant) become(k kind) {
	if t.kind == long {
		t.line.long -= t.held
	}
	if t.kind = k; k == long {
		t.line.long += t.held
	}
}

// tenantMayHold reports whether a tenant may hold cost more permits. The long tenants of a
// class have one bound together.
func (q *Queue) tenantMayHold(t *Tenant, cost int, r Room) bool {
	held := t.held
	if t.kind == long {
		held = t.line.long
	}
	if held == 0 {
		return true
	}
	most := q.tenantMost(t, r)
	return most == r.Limit || held+cost <= most
}

// A briefs remembers the last tenant that returned a permit soon, and when another did.
type briefs struct {
	last        uint64 // hash of its key
	at, other   time.Duration
	seen, mixed bool // at and other are set
}

// keys is the secret of the hashes.
var keys = maphash.MakeSeed()

func (b *briefs) see(key uint64, now time.Duration) {
	if b.seen && key != b.last {
		b.other, b.mixed = b.at, true
	}
	b.last, b.at, b.seen = key, now, true
}

// besides reports whether a tenant other than that of a key is remembered.
func (b *briefs) besides(key uint64, now time.Duration) bool {
	if key != b.last {
		return b.seen && now-b.at <= longMemory
	}
	return b.mixed && now-b.other <= longMemory
}

// noteBrief notes that a tenant returns a permit, if it returns its permits soon.
func (q *Queue) noteBrief(t *Tenant, r Room) {
	if t.key != "" && !t.holdsLong(r) {
		t.line.briefs.see(maphash.String(keys, t.key), r.Now)
	}
}

// leaves reports whether a tenant leaves permits to brief tenants that may come. While none
// came, it leaves some only if a tenant that comes would have to wait for long.
func (q *Queue) leaves(t *Tenant, r Room) bool {
	l := t.line
	return l.usage.ended == 0 || l.briefs.besides(maphash.String(keys, t.key), r.Now) ||
		l.usage.mean(r.Now, l.held) > time.Duration(r.Limit)*loneGap
}

// tenantMost returns the permits that a tenant may hold. Long tenants leave to brief ones
// twice the permits that these recently held and wanted, up to half of all permits. They
// always leave a few where brief tenants may come, so that a new tenant is served before the
// long calls end.
func (q *Queue) tenantMost(t *Tenant, r Room) int {
	l, last := t.line, r.Limit/lastPart
	if t.kind == brief || !q.leaves(t, r) {
		return r.Limit
	}
	if r.Limit >= lastPart/2 || r.Limit > 1 && l.sawLong && r.Now-l.longAt <= longMemory {
		last = max(last, 1)
	}
	if t.kind == unknown {
		return r.Limit - last
	}
	wanted := 2 * l.wanted.see(r.Now, 0)
	return max(1, r.Limit-max(1, last, min(wanted, r.Limit/2)))
}

// AtBound reports whether the tenant of a waiter may not hold its permits.
func (q *Queue) AtBound(w *Waiter, r Room) bool {
	t := w.tenant
	return t.held > 0 && !q.tenantMayHold(t, q.charge(t, w.Cost, r), r)
}
