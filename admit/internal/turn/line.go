package turn

import (
	"container/heap"
	"time"
)

// A line holds the calls of one class that wait or run.
type line struct {
	list // its waiters

	class  int
	held   int    // permits of its counted calls
	wants  int    // permits that its waiters want
	nobody Tenant // calls without a tenant
	named  int    // tenants with a name
	needy  ranking
	heavy  ranking
	debts  ranking // tenants in debt
	usage  usage
	demand demand
	long   int  // permits that tenants with long calls hold
	wanted peak // permits that the other tenants held and one of them wanted
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
	granted       int           // permits that its waiters got
	// passed is the number of permits that waiters of other classes got since a waiter
	// of this class got one. placed is its value when a call of this class last took a
	// place from a class above.
	passed, placed int
	// debt is the number of permits that other classes get before this class may exceed
	// its share again. See short.
	debt    int
	guesses int     // calls that a guess about their deadline spoke against
	blocked *Waiter // the head, once it did not find its permits free
	// idle permits beyond an equal part stay idle for blocked since idleAt. Before that, idled
	// is the sum over permits of the time for which each did.
	idle          int
	idled, idleAt time.Duration
}

func (l *line) init(class int) {
	l.of, l.class, l.nobody.line, l.nobody.kind = ofClass, class, l, brief
	l.needy.by, l.heavy.by, l.debts.by = byNeed, byWeight, byDebt
}

// hold counts permits that a tenant got. A negative number came back.
func (q *Queue) hold(t *Tenant, permits int, now time.Duration) {
	l := t.line
	t.usage.see(now, t.held)
	l.usage.see(now, l.held)
	l.see(now)
	if permits < 0 {
		t.usage.end(-permits, t.held)
		l.usage.end(-permits, l.held)
	}
	t.held += permits
	l.held += permits
	if t.kind == long {
		l.long += permits
	}
	t.moved()
	q.forget(t)
}

// see updates the demand of the class. Call it before permits held or wanted change.
func (l *line) see(now time.Duration) { l.demand.see(now, l.held+l.wants) }

// moved restores the order of the rankings after a tenant has changed.
func (t *Tenant) moved() {
	if t.calls.n > 0 {
		heap.Fix(&t.line.needy, t.index[byNeed])
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
	t.wants += w.Cost
	t.line.wants += w.Cost
	q.n++
	if t.calls.n > 1 {
		t.moved()
		return
	}
	if t.indebted = t.until > t.line.granted; t.indebted {
		heap.Push(&t.line.debts, t)
	}
	heap.Push(&t.line.needy, t)
	heap.Push(&t.line.heavy, t)
}

// Remove removes a waiter from the queue. It may drop the tenant.
func (q *Queue) Remove(w *Waiter, r Room) {
	q.see(r)
	t := w.tenant
	if t.line.blocked == w {
		if wasted := t.line.wasted(w, r.Now); wasted > 0 { // permits stayed idle in vain
			t.line.bill(t, max(0, t.until-t.line.granted)+wasted)
		}
		t.line.unblock()
	}
	if t.calls.n == 1 { // before its place in the rankings is lost
		heap.Remove(&t.line.needy, t.index[byNeed])
		heap.Remove(&t.line.heavy, t.index[byWeight])
		if t.indebted {
			heap.Remove(&t.line.debts, t.index[byDebt])
		}
	}
	t.calls.remove(w)
	t.line.remove(w)
	t.line.see(r.Now)
	t.wants -= w.Cost
	t.line.wants -= w.Cost
	q.n--
	t.moved()
	w.tenant, w.queued = nil, false
	q.forget(t)
}

// owe notes that a waiter gets permits. Part is an equal part of the permits
// of the class. A tenant that gets more than that at once is in debt until the others got
// as much, and the permits that stayed idle for it. Otherwise a tenant that asks for ten
// permits at a time would get ten times as much as one that asks for one.
func (l *line) owe(w *Waiter, permits, part int, now time.Duration) {
	t := w.tenant
	l.granted += permits
	for len(l.debts.tenants) > 0 && l.debts.tenants[0].until <= l.granted {
		free := heap.Pop(&l.debts).(*Tenant) //nolint:forcetypeassert // the heap holds nothing else
		free.indebted = false
		free.moved()
	}
	if t.held >= part || t.held+permits <= part {
		return
	}
	l.bill(t, (t.held+permits-part)*l.active()+l.wasted(w, now))
}

// bill puts a tenant with waiters into debt until its class got so many permits.
func (l *line) bill(t *Tenant, permits int) {
	t.until = l.granted + permits
	if t.indebted {
		heap.Fix(&l.debts, t.index[byDebt])
	} else {
		t.indebted = true
		heap.Push(&l.debts, t)
	}
	t.moved()
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
