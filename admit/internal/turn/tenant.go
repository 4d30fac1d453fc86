package turn

import "time"

// A Tenant has calls of a class that run or wait. A tenant without calls is dropped, so
// there are never more tenants than calls.
type Tenant struct {
	account

	line  *line
	key   string
	calls list // its waiters
	kind  kind // when its last call came
	// until is the value of line.granted at which the tenant's debt is repaid. indebted
	// tells whether it has waiters and a debt. See owe.
	until    int64
	indebted bool
	index    [rankings]int
	// The tenants of a queue form a ring, because a walk over a map that was large once would
	// take long.
	before, after *Tenant
}

type tenantKey struct {
	class int
	key   string
}

// An account counts the permits of a tenant, of a class, or of the long tenants of a class.
type account struct {
	held  int   // permits of counted calls
	wants int64 // permits that waiters want
	usage usage
}

// weight returns the permits that are held and wanted.
func (a *account) weight() int64 { return int64(a.held) + a.wants }

// hold counts permits that a call got. A negative number came back.
func (a *account) hold(permits int, now time.Duration) {
	a.usage.see(now, a.held)
	if permits < 0 {
		a.usage.end(-permits, a.held)
	}
	a.held += permits
}

// mean estimates how long a permit is held.
func (a *account) mean(now time.Duration) time.Duration { return a.usage.mean(now, a.held) }

// idle reports whether a tenant has no call.
func (t *Tenant) idle() bool { return t.held == 0 && t.calls.n == 0 }

// A usage measures how long permits are held. Running calls count with their age, so that
// calls without an end are noticed.
type usage struct {
	at     time.Duration // time of the last update
	area   time.Duration // sum over permits of the time that each was held
	ended  int           // permits that came back
	period int           // permits that came back since the last halving
}

// usageMemory is the least number of returned permits after which older ones count half. If
// more are held, it is their number, so that permits that come back together count alike.
const usageMemory = 32

// see updates the area. Held is the number of permits held since the last update.
func (u *usage) see(now time.Duration, held int) {
	d := now - u.at
	if d <= 0 { // the clock was read before the lock was taken
		return
	}
	u.at, u.area = now, addTime(u.area, d, held)
}

// addTime adds the time d of n permits to a sum over permits. The sum does not overflow.
func addTime(sum, d time.Duration, n int) time.Duration {
	const most = 1 << 60 // many permits for years
	if n <= 0 {
		return sum
	}
	return min(sum+min(d, most/time.Duration(n))*time.Duration(n), most)
}

// end counts permits that came back, of those held.
func (u *usage) end(permits, held int) {
	u.ended += permits
	if u.period += permits; u.period >= max(usageMemory, held) {
		u.area, u.ended, u.period = u.area/2, (u.ended+1)/2, 0
	}
}

// mean estimates how long a permit is held. It divides the time for which permits were
// held by the number that came back. That is the maximum likelihood estimate while some
// calls still run. If fewer came back than are held, each permit that is held counts as one
// that comes back now, because the estimate refuses calls and must err towards brief.
func (u *usage) mean(now time.Duration, held int) time.Duration {
	u.see(now, held)
	return u.area / time.Duration(max(1, u.ended, held))
}

// A peak is the highest value within the last one or two periods of peakMemory.
type peak struct {
	since           time.Duration
	current, before int64
}

const peakMemory = 10 * time.Second

// see adds a value and returns the peak.
func (p *peak) see(now time.Duration, n int64) int64 {
	if age := now - p.since; age >= peakMemory {
		p.before, p.current = p.current, 0
		if age >= 2*peakMemory {
			p.before = 0
		}
		p.since = now
	}
	p.current = max(p.current, n)
	return max(p.current, p.before)
}

// find returns a tenant of a class, or nil if the tenant has no calls.
func (q *Queue) find(class int, key string) *Tenant {
	if key == "" {
		return &q.lines[class].nobody
	}
	return q.tenants[tenantKey{class, key}]
}

// spareTenants is the number of tenants that are kept for reuse.
const spareTenants = 64

// tenant returns a tenant of a class and creates it if it has no calls.
func (q *Queue) tenant(class int, key string) *Tenant {
	t := q.find(class, key)
	if t != nil {
		return t
	}
	if last := len(q.spare) - 1; last >= 0 {
		t, q.spare = q.spare[last], q.spare[:last]
	} else {
		t = new(Tenant)
	}
	t.line, t.key = &q.lines[class], key
	t.until = t.line.absent.take(t)
	t.line.named++
	q.tenants[tenantKey{class, key}] = t
	q.enter(t)
	return t
}

// enter puts a tenant into the ring, where the next look comes to it last.
func (q *Queue) enter(t *Tenant) {
	if q.shown == nil {
		q.shown, t.before, t.after = t, t, t
		return
	}
	t.before, t.after = q.shown.before, q.shown
	t.before.after, t.after.before = t, t
}

// leave takes a tenant out of the ring.
func (q *Queue) leave(t *Tenant) {
	t.before.after, t.after.before = t.after, t.before
	if q.shown == t {
		q.shown = t.after
	}
	if q.shown == t {
		q.shown = nil
	}
}

// forget drops a tenant if it has no calls.
func (q *Queue) forget(t *Tenant) {
	if t.key == "" || !t.idle() {
		return
	}
	t.line.absent.put(t)
	delete(q.tenants, tenantKey{t.line.class, t.key})
	q.leave(t)
	t.line.named--
	*t = Tenant{}
	if len(q.spare) < spareTenants {
		q.spare = append(q.spare, t)
	}
}
