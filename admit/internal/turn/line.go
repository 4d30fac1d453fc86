package turn

import (
	"container/heap"
	"time"
)

// A line holds the calls of one class that wait or run.
type line struct {
	list // its waiters
	account

	class  int
	nobody Tenant         // calls without a tenant
	named  int            // tenants with a name
	needy  [kinds]ranking // tenants with waiters, by kind
	heavy  ranking        // all tenants with waiters
	debts  ranking        // the ones in debt
	absent debtors
	demand demand
	long   account // of the long tenants
	wanted peak    // permits that the other tenants held, and the one that called wanted
	// longAt is when a call of a tenant with long calls last came or ended. sawLong tells
	// whether one did.
	longAt  time.Duration
	sawLong bool
	briefs  briefs
	state   standing
	// asked counts the calls that found no permit free. served counts the waiters that
	// were served.
	asked, served int
	came          time.Duration // when its last call came, as far as the queue saw it
	granted       int64         // permits that its waiters got
	// passed is the number of permits that waiters of other classes got since a waiter
	// of this class got one. placed is its value when a call of this class last took a
	// place from a class above.
	passed, placed int64
	// debt is the number of permits that other classes get before this class may exceed
	// its share again. See short.
	debt    int64
	guesses int     // calls that a guess about their deadline spoke against
	blocked *Waiter // the head, once it did not find its permits free
	// idle permits beyond an equal part stay idle for blocked since idleAt. Before that, idled
	// is the sum over permits of the time for which each did.
	idle          int
	idled, idleAt time.Duration
}

func (l *line) init(class int) {
	l.of, l.class, l.nobody.line, l.nobody.kind = ofClass, class, l, brief
	l.heavy.by, l.debts.by = byWeight, byDebt
}

// hold counts permits that a tenant got. A negative number came back.
func (q *Queue) hold(t *Tenant, permits int, now time.Duration) {
	l := t.line
	l.see(now)
	t.hold(permits, now)
	l.hold(permits, now)
	if t.kind == long {
		l.long.hold(permits, now)
	}
	t.moved()
	q.forget(t)
}

// see updates the demand of the class. Call it before permits held or wanted change.
func (l *line) see(now time.Duration) { l.demand.see(now, l.weight()) }

// want notes that a tenant wants so many permits more, or fewer.
func (t *Tenant) want(permits int64) {
	t.wants += permits
	t.line.wants += permits
	if t.kind == long {
		t.line.long.wants += permits
	}
}

// needy returns the ranking by need to which a tenant with waiters belongs.
func (t *Tenant) needy() *ranking { return &t.line.needy[t.kind] }

// neediest returns the first tenant by need of the tenants with waiters.
func (l *line) neediest() (first *Tenant) {
	for k := range l.needy {
		r := &l.needy[k]
		if len(r.tenants) > 0 && (first == nil || r.before(r.tenants[0], first)) {
			first = r.tenants[0]
		}
	}
	return first
}

// moved restores the order of the rankings after a tenant has changed.
func (t *Tenant) moved() {
	if t.calls.n > 0 {
		heap.Fix(t.needy(), t.index[byNeed])
		heap.Fix(&t.line.heavy, t.index[byWeight])
	}
}

// Join adds a waiter to the queue. Call Ask first.
func (q *Queue) Join(w *Waiter, tenant string, r Room) {
	q.see(r)
	t := q.tenant(w.Class, tenant)
	q.seq++
	w.tenant, w.seq = t, q.seq
	t.calls.push(w)
	t.line.push(w)
	w.queued = true
	t.line.see(r.Now)
	t.want(int64(w.Cost))
	q.n++
	if t.calls.n > 1 {
		t.moved()
		return
	}
	if t.indebted = t.until > t.line.granted; t.indebted {
		heap.Push(&t.line.debts, t)
	}
	heap.Push(t.needy(), t)
	heap.Push(&t.line.heavy, t)
}

// Remove removes a waiter from the queue. It may drop the tenant.
func (q *Queue) Remove(w *Waiter, r Room) {
	q.see(r)
	t := w.tenant
	if t.line.blocked == w {
		t.line.bill(t, t.line.wasted(w, r.Now), r.Limit) // permits stayed idle in vain
		t.line.unblock()
	}
	if t.calls.n == 1 { // before its place in the rankings is lost
		heap.Remove(t.needy(), t.index[byNeed])
		heap.Remove(&t.line.heavy, t.index[byWeight])
		if t.indebted {
			heap.Remove(&t.line.debts, t.index[byDebt])
		}
	}
	t.calls.remove(w)
	t.line.remove(w)
	t.line.see(r.Now)
	t.want(-int64(w.Cost))
	q.n--
	t.moved()
	w.tenant, w.queued = nil, false
	q.forget(t)
}

// sooner reports whether a has waited longer than b.
func sooner(a, b *Waiter) bool { return a.seq < b.seq }

// heaviest returns the tenant of the largest weight among the tenants with waiters.
func (l *line) heaviest() *Tenant { return l.heavy.tenants[0] }

// active returns the number of tenants with calls.
func (l *line) active() int {
	if l.nobody.idle() {
		return l.named
	}
	return l.named + 1
}
