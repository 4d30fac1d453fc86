package turn

import (
	"container/heap"
	"time"
)

// A guaranteed share is lent, but for a reserve. The reserve is the most permits that the class
// wanted at once in the last minute or two. It shrinks by the permits that come back soon.
const (
	// soon is how long a class may wait for the permits of its share. A class with long calls
	// may wait for one soonPart of their duration.
	soon     = 25 * time.Millisecond
	soonPart = 4
	// tenantGap is the longest gap between two permits that come back with which a tenant may
	// hold all permits, if brief tenants call as well. Otherwise loneGap is. The gap is the
	// duration of a call divided by the limit.
	tenantGap = 50 * time.Millisecond
	loneGap   = 500 * time.Millisecond
	// shareMemory is how long a reserve is kept for a class that makes no call.
	shareMemory = time.Minute
	// lastPart is the part of the permits, as 1 in lastPart, that long and unknown
	// tenants leave to tenants that may come.
	lastPart = 8
	// longMemory is how long a class is suspected after a call of a long tenant.
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
	if left := q.lineMost(l, r); left < r.Limit {
		most = min(most, max(left-q.onLoan(l, r), q.guaranteed(l.class, r.Limit)))
	}
	return most >= r.Limit || l.held+cost <= most
}

// charge returns the cost charged to a call of a tenant. It is bounded by the limit, by the
// permits that the reserves of other classes leave, and by the bound of the tenant. Max does not
// bound it, since one call of a class can always run.
func (q *Queue) charge(t *Tenant, cost int, r Room) int {
	if cost == 1 {
		return 1
	}
	most := r.Limit
	if q.counted {
		most = q.lineMost(t.line, r)
	}
	return max(1, min(cost, most, q.tenantMost(t, r)))
}

// lineMost returns the permits that the reserves of the other classes leave to a class. A
// reserve shrinks by the permits that come back soon while the class holds all of them.
func (q *Queue) lineMost(l *line, r Room) int {
	most := r.Limit
	for _, c := range q.order {
		other := &q.lines[c]
		reserve := q.reserve(other, r)
		if other == l || reserve == 0 {
			continue
		}
		gap := max(1, l.mean(r.Now)/time.Duration(r.Limit))
		soon := max(soon, other.mean(r.Now)/soonPart)
		most -= reserve - int(min(soon/gap, time.Duration(reserve)))
	}
	return most
}

// onLoan returns the permits that other classes with long calls hold beyond their shares.
func (q *Queue) onLoan(l *line, r Room) (permits int) {
	for _, c := range q.order {
		if other := &q.lines[c]; other != l && q.lineMost(other, r) < r.Limit {
			permits += max(0, other.held-q.guaranteed(c, r.Limit))
		}
	}
	return permits
}

// reserve returns the permits that are kept for a class, at most its share.
func (q *Queue) reserve(l *line, r Room) int {
	share := q.guaranteed(l.class, r.Limit)
	if share == 0 || r.Now-l.came > shareMemory {
		return 0
	}
	return int(min(int64(share), l.demand.most(r.Now, l.weight(), int64(share))))
}

// A demand is the most permits that the calls of a class held and wanted at once, in this
// period and the one before. Periods begin at multiples of demandPeriod.
type demand struct {
	begun           bool
	since           time.Duration // when the class came, or came back
	at              time.Duration // time of the last update
	current, before int64
}

// begin notes that a call came, and when one came last.
func (d *demand) begin(now, last time.Duration) {
	if !d.begun || now-last > shareMemory {
		*d = demand{begun: true, since: now, at: now}
	}
}

// see notes that n permits were held and wanted since the last update.
func (d *demand) see(now time.Duration, n int64) {
	if !d.begun || now <= d.at {
		return
	}
	d.current = max(d.current, n)
	switch now/demandPeriod - d.at/demandPeriod {
	case 0:
	case 1:
		d.before, d.current = d.current, n
	default:
		d.before, d.current = n, n
	}
	d.at = now
}

// most returns the demand, or otherwise while it is not known.
func (d *demand) most(now time.Duration, n, otherwise int64) int64 {
	if d.see(now, n); !d.begun || d.at-d.since < demandKnown {
		return otherwise
	}
	return max(d.current, d.before)
}

const (
	demandPeriod = time.Minute
	demandKnown  = 10 * time.Second // time until the demand is known
)

// A kind says how long a tenant holds permits.
type kind uint8

const (
	unknown kind = iota
	brief        // it returns permits soon
	long

	kinds = 3
)

// holdsLong reports whether a tenant holds its permits for long.
func (t *Tenant) holdsLong(r Room) bool {
	return t.mean(r.Now) > time.Duration(r.Limit)*tenantGap
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
func (t *Tenant) become(k kind, now time.Duration) {
	if t.kind == k {
		return
	}
	t.join(t.kind, -1, now)
	t.kind = k
	t.join(k, 1, now)
}

// join adds a tenant to the tenants of a kind. With a sign of -1 it takes the tenant out.
func (t *Tenant) join(k kind, sign int, now time.Duration) {
	l := t.line
	if k == long {
		l.long.usage.see(now, l.long.held)
		l.long.held += sign * t.held
		l.long.wants += int64(sign) * t.wants
	}
	switch {
	case t.calls.n == 0:
	case sign > 0:
		heap.Push(&l.needy[k], t)
	default:
		heap.Remove(&l.needy[k], t.index[byNeed])
	}
}

// bound returns the account that counts against the bound of a tenant. The long tenants of a
// class have one bound together.
func (t *Tenant) bound() *account {
	if t.kind == long {
		return &t.line.long
	}
	return &t.account
}

// tenantMayHold reports whether a tenant may hold cost more permits.
func (q *Queue) tenantMayHold(t *Tenant, cost int, r Room) bool {
	held := t.bound().held
	if held == 0 {
		return true
	}
	most := q.tenantMost(t, r)
	return most == r.Limit || held+cost <= most
}

// holdsMost reports whether a tenant holds most of the permits that count against its bound.
func (t *Tenant) holdsMost() bool { return 2*t.held > t.bound().held }

// A briefs remembers the last tenant that returned a permit soon, and when another did.
type briefs struct {
	last        uint64 // hash of its key
	at, other   time.Duration
	seen, mixed bool // at and other are set
}

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

// noteKind notes that a tenant returns a permit, soon or after long.
func (q *Queue) noteKind(t *Tenant, r Room) {
	switch {
	case t.key == "":
	case t.holdsLong(r):
		t.line.sawLong, t.line.longAt = true, r.Now
	default:
		t.line.briefs.see(t.hash(), r.Now)
	}
}

// suspects reports whether a long tenant called lately. It may be gone and come back as one
// that is not known.
func (l *line) suspects(now time.Duration) bool { return l.sawLong && now-l.longAt <= longMemory }

// leaves reports whether a tenant leaves permits to brief tenants that may come. While none
// came, it leaves some only if a tenant that comes would have to wait for long.
func (q *Queue) leaves(t *Tenant, r Room) bool {
	l := t.line
	return l.usage.ended == 0 || l.briefs.besides(t.hash(), r.Now) || l.mean(r.Now) > time.Duration(r.Limit)*loneGap
}

// tenantMost returns the permits that a tenant may hold. Long tenants leave to brief ones
// twice the permits that these recently held and one of them wanted, up to half of all permits.
// So does an unknown tenant if it may be long. They always leave a few where brief tenants may
// come, so that a new tenant is served before the long calls end.
func (q *Queue) tenantMost(t *Tenant, r Room) int {
	l, last := t.line, r.Limit/lastPart
	if t.kind == brief || !q.leaves(t, r) {
		return r.Limit
	}
	if r.Limit >= lastPart/2 || r.Limit > 1 && l.suspects(r.Now) {
		last = max(last, 1)
	}
	if t.kind == unknown && !l.suspects(r.Now) {
		return r.Limit - last
	}
	wanted := min(2*l.wanted.see(r.Now, 0), int64(r.Limit/2))
	return max(1, r.Limit-max(1, last, int(wanted)))
}

// AtBound reports whether a waiter waits for permits most of which its own tenant holds.
func (q *Queue) AtBound(w *Waiter, r Room) bool {
	t := w.tenant
	return t.holdsMost() && !q.tenantMayHold(t, q.charge(t, w.Cost, r), r)
}
