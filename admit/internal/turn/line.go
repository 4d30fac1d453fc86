package turn

import (
	"container/heap"
	"time"
)

// A line is the calls of one class: those that wait and those that run.
type line struct {
	class  int
	n      int // calls that wait
	held   int // permits of its counted calls
	wants  int // permits that its waiting calls want
	nobody Tenant
	named  int // tenants besides nobody
	needy  ranking
	heavy  ranking
	debts  ranking // the tenants that are in debt
	usage  usage
	long   int  // permits that tenants with long calls hold
	wanted peak // permits that the other tenants held and wanted
	// longAt is when a call of a tenant with long calls last came, if one did.
	longAt  time.Duration
	sawLong bool
	state   standing
	// asked counts the calls that came and found no permit, served those that
	// were served from the queue.
	asked, served int
	came          time.Duration // when a call of it last came, as far as that is seen
	// granted is how many permits waiting calls have got.
	granted int
	// passed is how many permits waiting calls of other classes have got since
	// one of this class did. placed is its value when a call of this class last
	// took a place from a class above.
	passed, placed int
	// debt is how many permits other classes get before this class may exceed
	// its share again: see short.
	debt int
	// guesses counts the calls that a guess about their deadline refused.
	guesses int
}

func (l *line) init(class int) {
	l.class, l.nobody.line, l.nobody.kind = class, l, brief
	l.needy.by, l.heavy.by, l.debts.by = byNeed, byWeight, byDebt
}

// hold counts permits that a tenant got or, if negative, gave back.
func (q *Queue) hold(t *Tenant, permits int, now time.Duration) {
	l := t.line
	t.usage.see(now, t.held)
	l.usage.see(now, l.held)
	if permits < 0 {
		t.usage.end(-permits)
		l.usage.end(-permits)
	}
	t.held += permits
	l.held += permits
	if t.kind == long {
		l.long += permits
	}
	t.moved()
	q.forget(t)
}

// moved restores the order of the rankings after a tenant has changed.
func (t *Tenant) moved() {
	if t.calls.n > 0 {
		heap.Fix(&t.line.needy, t.index[byNeed])
		heap.Fix(&t.line.heavy, t.index[byWeight])
	}
}

// Join makes a call wait. Ask first.
func (q *Queue) Join(w *Waiter, tenant string, r Room) {
	q.see(r)
	t := q.tenant(w.Class, tenant)
	q.seq++
	w.tenant, w.seq = t, q.seq
	t.calls.push(w)
	t.wants += w.Cost
	t.line.wants += w.Cost
	t.line.n++
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

// Remove takes a waiting call out of the queue. Its tenant may be forgotten.
func (q *Queue) Remove(w *Waiter, r Room) {
	q.see(r)
	t := w.tenant
	if t.calls.n == 1 { // while its place in the rankings is known
		heap.Remove(&t.line.needy, t.index[byNeed])
		heap.Remove(&t.line.heavy, t.index[byWeight])
		if t.indebted {
			heap.Remove(&t.line.debts, t.index[byDebt])
		}
	}
	t.calls.remove(w)
	t.wants -= w.Cost
	t.line.wants -= w.Cost
	t.line.n--
	q.n--
	t.moved()
	w.tenant = nil
	q.forget(t)
}

// owe notes that a waiting call of a tenant gets permits; part is an equal part
// of the permits of the class. A tenant that gets more than that at once lets
// the others have as much before its next turn. Otherwise a tenant that asks for
// ten permits at a time would get ten times as much as one that asks for one.
func (l *line) owe(t *Tenant, permits, part int) {
	l.granted += permits
	for len(l.debts.tenants) > 0 && l.debts.tenants[0].until <= l.granted {
		free := heap.Pop(&l.debts).(*Tenant) //nolint:forcetypeassert // the heap holds nothing else
		free.indebted = false
		free.moved()
	}
	if t.held >= part || t.held+permits <= part {
		return
	}
	t.until = l.granted + (t.held+permits-part)*l.active()
	if t.indebted {
		heap.Fix(&l.debts, t.index[byDebt])
	} else {
		t.indebted = true
		heap.Push(&l.debts, t)
	}
	t.moved()
}

// sooner reports whether the next tenant of a line has waited for longer than
// that of another line.
func sooner(a, b *Waiter) bool { return a.seq < b.seq }

// heaviest returns the waiting tenant that takes the most.
func (l *line) heaviest() *Tenant { return l.heavy.tenants[0] }

// active counts the tenants of a line that have calls.
func (l *line) active() int {
	if l.nobody.idle() {
		return l.named
	}
	return l.named + 1
}
