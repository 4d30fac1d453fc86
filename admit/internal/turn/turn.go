// Package turn is the queue of a gate. It decides which call runs, waits, is served next,
// is evicted or is refused.
//
// It is pure. It takes no lock, reads no clock, starts no goroutine and does not import
// package admit, which owns the lock, the clock and the waiting. Each decision of a
// [Queue] gets the state of the gate as a [Room].
//
// The files follow the decisions:
//
//   - claim.go: May a newcomer run at once?
//   - ask.go: May a newcomer wait, and which waiter is evicted for it?
//   - next.go: Which waiter is served when permits come back?
//   - lend.go: How many permits may a class or a tenant hold?
//   - standing.go: Does the queue drain or stand?
//   - estimate.go: How long will a newcomer wait?
//   - debt.go: What does a tenant owe that got much at once?
//   - line.go, tenant.go, ranking.go: The calls of a class and of a tenant.
package turn

import (
	"slices"
	"time"
)

// MaxClasses is the largest number of classes. A class is an index below it.
const MaxClasses = 8

// A Class is the configuration of a class.
type Class struct {
	// Priority orders classes, the higher first. A class of priority 0 does not exist.
	Priority int
	// Share is the guaranteed part of the permits and places, from 0 to 1.
	Share float64
	// Max bounds the permits and places of the class; 0 means no bound.
	Max float64
}

// A Config configures a Queue.
type Config struct {
	Classes [MaxClasses]Class
	// Places bounds the number of waiters. With 0 no call waits.
	Places int
	// MaxWait bounds the wait of a call. 0 means no bound.
	MaxWait time.Duration
	// Block lets every call wait, regardless of Places and MaxWait.
	Block bool
}

// A Room is the state of the gate at the moment of a decision.
type Room struct {
	// Limit is the number of permits, InFlight the number of permits in use.
	Limit, InFlight int
	// Now is the time on the gate's clock. It never goes back.
	Now time.Duration
	// Pace is the mean time between two permits that come back while all are in use. It
	// is 0 if it is not known.
	Pace time.Duration
	// Lasts is the mean time for which a call runs, or 0 if it is not known.
	Lasts time.Duration
	// Probing tells that the limit is lowered for a moment, to measure the server.
	Probing bool
}

// A Call describes a call. Its class must exist, and its cost must be from 1 to the limit.
type Call struct {
	Class  int
	Tenant string
	Cost   int
}

// A Reason is why a call is refused.
type Reason uint8

// Package admit describes the reasons.
const (
	QueueFull Reason = iota
	Evicted
	DeadlineTooClose
	OverShare
)

// A Queue holds the waiters, and counts the permits by class and tenant. It is not safe
// for concurrent use. Use [New].
type Queue struct {
	cfg     Config
	order   []int // the classes that exist, by falling priority
	counted bool  // a class has a share or a bound, so the queue must see every claim

	scarce    bool          // processors are scarce
	bare      bool          // it has no waiters of classes for which it stands
	bareUntil time.Duration // when that ends, or from when it may begin

	lines    [MaxClasses]line
	n        int    // waiters
	seq      uint64 // waiters so far
	tenants  map[tenantKey]*Tenant
	shown    *Tenant // the tenant with which Loads goes on, nil if there is none
	spare    []*Tenant
	stranger Tenant // scratch space for a tenant without calls
}

// New returns an empty queue.
func New(cfg Config) *Queue {
	q := &Queue{tenants: map[tenantKey]*Tenant{}}
	for i := range q.lines {
		q.lines[i].init(i)
	}
	q.Configure(cfg, 0)
	return q
}

// Configure replaces the configuration. Call [Queue.Excess] afterwards to refuse the
// waiters that have no place any more.
func (q *Queue) Configure(cfg Config, now time.Duration) {
	before, counted := q.cfg, q.counted
	q.cfg, q.order, q.counted = cfg, nil, false
	for c, class := range cfg.Classes {
		if class.Priority > 0 {
			q.order = append(q.order, c)
		}
		q.counted = q.counted || class.Share > 0 || q.bounded(c)
	}
	for c := range q.lines {
		if q.counted && !counted {
			q.lines[c].demand = demand{} // it did not see all calls
		}
		if cfg.Classes[c].Share > 0 && before.Classes[c].Share == 0 {
			q.lines[c].came = now // its share is kept as in a new queue
		}
	}
	slices.SortStableFunc(q.order, func(a, b int) int { return cfg.Classes[b].Priority - cfg.Classes[a].Priority })
}

// Counted reports whether the queue must see every claim, because a class has a
// share or a bound.
func (q *Queue) Counted() bool { return q.counted }

// Len returns the number of waiters.
func (q *Queue) Len() int { return q.n }

// Waiting returns the number of waiters of a class.
func (q *Queue) Waiting(class int) int { return q.lines[class].n }

// Held returns the number of counted permits that calls of a class hold.
func (q *Queue) Held(class int) int { return q.lines[class].held }

// Tenants returns the number of named tenants with calls that run or wait.
func (q *Queue) Tenants() int { return len(q.tenants) }

// Standing reports whether the queue stands for a class. Only few of its calls may wait
// then.
func (q *Queue) Standing(class int) bool { return q.lines[class].state.stands }

// Any returns some waiter, or nil if there is none.
func (q *Queue) Any() *Waiter {
	for i := range q.lines {
		if l := &q.lines[i]; l.n > 0 {
			return l.first
		}
	}
	return nil
}

// Urgent returns the class of the highest priority with a waiter that may have permits
// which other classes hold. It returns false if there is none.
func (q *Queue) Urgent(r Room) (class int, ok bool) {
	for _, c := range q.order {
		l := &q.lines[c]
		if w, cost := q.head(l, r); w != nil && q.lineMayHold(l, cost, r) {
			return c, true
		}
	}
	return 0, false
}

// guaranteed returns the share of a class of n permits or places.
func (q *Queue) guaranteed(class, n int) int { return portion(q.cfg.Classes[class].Share, n) }

// bounded reports whether a class has a bound.
func (q *Queue) bounded(class int) bool {
	c := &q.cfg.Classes[class]
	return c.Max > 0 && c.Max < 1
}

// most returns the bound of a class of n permits or places.
func (q *Queue) most(class, n int) int {
	if !q.bounded(class) {
		return n
	}
	return max(1, portion(q.cfg.Classes[class].Max, n))
}

// wideBound is the least bound of a class behind which a limit may grow.
const wideBound = 0.5

// Among returns the number of permits in use as calls of a class see it. Where a bound keeps a
// class from the permits that are free, and is wide, the limit counts as used to the degree in
// which the bound is. Otherwise a low limit could never rise where all calls have a bound.
func (q *Queue) Among(class, inFlight, limit int) int {
	if !q.bounded(class) || q.cfg.Classes[class].Max < wideBound {
		return inFlight
	}
	return max(inFlight, int(int64(q.lines[class].held)*int64(limit)/int64(q.most(class, limit))))
}

// portion returns a share of n, rounded down. It tolerates rounding errors of floating
// point.
func portion(share float64, n int) int { return int(share*float64(n) + 1e-9) }

// outranks reports whether a line has a higher priority than another.
func (q *Queue) outranks(l, other *line) bool {
	return q.cfg.Classes[l.class].Priority > q.cfg.Classes[other.class].Priority
}
