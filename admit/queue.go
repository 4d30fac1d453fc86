package admit

import (
	"container/heap"
	"time"
)

// A waiter is a call in the queue. Its fields are guarded by the gate's lock,
// but for ready, which carries the verdict, once.
type waiter struct {
	ready      chan *Refusal // nil: the permit is yours
	prev, next *waiter
	class      Class
	tenant     *tenant
	cost       int
	claim      claim // what it was given
	queued     bool
	pressed    bool          // no permit was free
	seq        uint64        // how many came before
	since      time.Duration // when it began to wait, on the gate's clock
	deadline   time.Duration // its context's deadline on that clock, or 0
	granted    time.Duration // when it was given a permit
	timer      *time.Timer
}

// A list is the waiters of one tenant, oldest first.
type list struct {
	first, last *waiter
	n           int
}

func (l *list) push(w *waiter) {
	w.prev, w.next, w.queued = l.last, nil, true
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.n++
}

func (l *list) remove(w *waiter) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	l.n--
}

// A tenant is who has calls of a class that run or wait. When there are none it
// is forgotten: there are never more tenants than calls.
type tenant struct {
	line  *line
	key   string
	held  int  // permits of its counted calls
	wants int  // permits that its waiting calls want
	calls list // those
	// until is up to how many permits for its class it has had too much at once: see
	// owe. indebted says so while it waits.
	until    int
	indebted bool
	index    [3]int
}

// weight is how much of the gate a tenant takes.
func (t *tenant) weight() int { return t.held + t.wants }

// idle reports that nothing is known of a tenant any more.
func (t *tenant) idle() bool { return t.held == 0 && t.calls.n == 0 }

// ranking is a heap of tenants that wait.
type ranking struct {
	tenants []*tenant
	by      int // which of the two orders
}

const (
	byNeed   = iota // who is not in debt, and holds the least, first; then who waits longest
	byWeight        // who takes the most first; then who waits longest
	byDebt          // whose debt ends first
)

// Len implements heap.Interface.
func (r *ranking) Len() int { return len(r.tenants) }

// Less implements heap.Interface.
func (r *ranking) Less(i, j int) bool {
	a, b := r.tenants[i], r.tenants[j]
	switch {
	case r.by == byNeed && a.indebted != b.indebted:
		return b.indebted
	case (r.by == byDebt || r.by == byNeed && a.indebted) && a.until != b.until:
		return a.until < b.until
	case r.by == byNeed && !a.indebted && a.held != b.held:
		return a.held < b.held
	case r.by == byWeight && a.weight() != b.weight():
		return a.weight() > b.weight()
	}
	return a.calls.first.seq < b.calls.first.seq
}

// Swap implements heap.Interface.
func (r *ranking) Swap(i, j int) {
	t := r.tenants
	t[i], t[j] = t[j], t[i]
	t[i].index[r.by], t[j].index[r.by] = i, j
}

// Push implements heap.Interface.
func (r *ranking) Push(x any) {
	t := x.(*tenant) //nolint:forcetypeassert // the heap holds nothing else
	t.index[r.by] = len(r.tenants)
	r.tenants = append(r.tenants, t)
}

// Pop implements heap.Interface.
func (r *ranking) Pop() any {
	last := len(r.tenants) - 1
	t := r.tenants[last]
	r.tenants[last] = nil
	r.tenants = r.tenants[:last]
	return t
}

// A line is the calls of one class.
type line struct {
	class  Class
	n      int // how many wait
	held   int // permits of its counted calls
	wants  int // permits that its waiting calls want
	nobody tenant
	named  int // tenants but for nobody
	needy  ranking
	heavy  ranking
	debts  ranking // of those that are in debt
	// granted is how many permits waiting calls have got.
	granted int
	// passed is how many permits waiting calls of other classes have got since
	// one of this class did; placed what it was when a call of it took a place
	// from a class above.
	passed, placed int
	// debt is how many permits others are to get before this class gets more at once
	// than its share: see short.
	debt int
}

// A queue is who waits for permits and who holds them: a line for each class.
// The gate's lock guards it.
type queue struct {
	lines   [MaxClasses]line
	n       int
	seq     uint64 // how many have come
	tenants map[tenantKey]*tenant
	spare   []*tenant
}

type tenantKey struct {
	class Class
	key   string
}

func (q *queue) init() {
	q.tenants = map[tenantKey]*tenant{}
	for i := range q.lines {
		l := &q.lines[i]
		l.class, l.nobody.line = Class(i), l
		l.needy.by, l.heavy.by, l.debts.by = byNeed, byWeight, byDebt
	}
}

// find returns a tenant of a class, or nil if it has no calls.
func (q *queue) find(c Class, key string) *tenant {
	if key == "" {
		return &q.lines[c].nobody
	}
	return q.tenants[tenantKey{c, key}]
}

// tenant is find, and makes what it does not find.
func (q *queue) tenant(c Class, key string) *tenant {
	t := q.find(c, key)
	if t != nil {
		return t
	}
	if last := len(q.spare) - 1; last >= 0 {
		t, q.spare = q.spare[last], q.spare[:last]
	} else {
		t = new(tenant)
	}
	t.line, t.key = &q.lines[c], key
	t.line.named++
	q.tenants[tenantKey{c, key}] = t
	return t
}

// spareTenants is how many are kept for reuse.
const spareTenants = 64

// forget drops a tenant of whom nothing is known.
func (q *queue) forget(t *tenant) {
	if t.key == "" || !t.idle() {
		return
	}
	delete(q.tenants, tenantKey{t.line.class, t.key})
	t.line.named--
	t.line, t.key, t.until = nil, "", 0
	if len(q.spare) < spareTenants {
		q.spare = append(q.spare, t)
	}
}

// hold counts permits that a tenant got, or, if negative, gave back.
func (q *queue) hold(t *tenant, permits int) {
	t.held += permits
	t.line.held += permits
	t.moved()
	q.forget(t)
}

// moved puts a tenant in its places again.
func (t *tenant) moved() {
	if t.calls.n > 0 {
		heap.Fix(&t.line.needy, t.index[byNeed])
		heap.Fix(&t.line.heavy, t.index[byWeight])
	}
}

func (q *queue) push(w *waiter) {
	t := w.tenant
	q.seq++
	w.seq = q.seq
	t.calls.push(w)
	t.wants += w.cost
	t.line.wants += w.cost
	if t.calls.n == 1 {
		if t.indebted = t.until > t.line.granted; t.indebted {
			heap.Push(&t.line.debts, t)
		}
		heap.Push(&t.line.needy, t)
		heap.Push(&t.line.heavy, t)
	} else {
		t.moved()
	}
	t.line.n++
	q.n++
}

// remove takes w out. Its tenant may be forgotten then.
func (q *queue) remove(w *waiter) {
	t := w.tenant
	if t.calls.n == 1 { // while its place in the rankings is still known
		heap.Remove(&t.line.needy, t.index[byNeed])
		heap.Remove(&t.line.heavy, t.index[byWeight])
		if t.indebted {
			heap.Remove(&t.line.debts, t.index[byDebt])
		}
	}
	t.calls.remove(w)
	t.wants -= w.cost
	t.line.wants -= w.cost
	t.line.n--
	q.n--
	t.moved()
	q.forget(t)
}

// owe notes that a waiting call of a tenant gets permits, at most so many of which fit an
// equal part. If they are more, it is to let others have as much before its next turn:
// with turns for calls alone, who asks for ten permits at a time would get ten times as
// much as who asks for one.
func (l *line) owe(t *tenant, permits, part int) {
	l.granted += permits
	for len(l.debts.tenants) > 0 && l.debts.tenants[0].until <= l.granted {
		free := heap.Pop(&l.debts).(*tenant) //nolint:forcetypeassert // the heap holds nothing else
		free.indebted = false
		free.moved()
	}
	if t.held >= part || t.held+permits <= part {
		return
	}
	t.until = l.granted + (t.held+permits-part)*l.active()
	if !t.indebted {
		t.indebted = true
		heap.Push(&l.debts, t)
	} else {
		heap.Fix(&l.debts, t.index[byDebt])
	}
	t.moved()
}

// next returns the call of a line that is served next: of the tenant that holds
// the least its oldest, or its newest.
func (l *line) next(newest bool) *waiter {
	t := l.needy.tenants[0]
	if newest {
		return t.calls.last
	}
	return t.calls.first
}

// before estimates how many calls of a line are served before a new one of a tenant,
// nil if it has none: tenants take turns, and who holds less is first.
func (l *line) before(t *tenant) int {
	held, waiting := 0, 0
	if t != nil {
		held, waiting = t.held, t.calls.n
	}
	if l.n == 0 || held+waiting < l.needy.tenants[0].held {
		return waiting
	}
	return min(l.n, (waiting+1)*len(l.needy.tenants))
}

// sooner reports whether the tenant whose turn it is has waited for longer than
// that of another line.
func (l *line) sooner(other *line) bool {
	return l.needy.tenants[0].calls.first.seq < other.needy.tenants[0].calls.first.seq
}

// heaviest returns the tenant that takes the most, of those who wait.
func (l *line) heaviest() *tenant { return l.heavy.tenants[0] }

// active counts the tenants of a line that have calls.
func (l *line) active() int {
	if l.nobody.idle() {
		return l.named
	}
	return l.named + 1
}

// any returns one that waits, or nil.
func (q *queue) any() *waiter {
	for i := range q.lines {
		if l := &q.lines[i]; l.n > 0 {
			return l.next(false)
		}
	}
	return nil
}
