// Package turn decides whose turn it is: which call may run, which one waits,
// which one is served next, and which one is evicted or refused.
//
// It is pure: it takes no lock, reads no clock, starts no goroutine and knows no
// gate. A [Queue] is told what there is at the moment of each decision, as a
// [Room], and answers. Package admit owns the lock, the clock and the waiting.
//
// The files follow the decisions:
//
//   - claim.go: may a newcomer run at once?
//   - ask.go: may a newcomer wait, and who is evicted for it?
//   - next.go: who is served when permits come free?
//   - lend.go: who may hold how much, and for how long?
//   - standing.go: does the queue drain or stand?
//   - estimate.go: how long will a newcomer wait?
//   - line.go, tenant.go, ranking.go: the calls of a class, of a tenant.
package turn

import (
	"slices"
	"time"
)

// MaxClasses is how many classes a queue can have. A class is an index below it.
const MaxClasses = 8

// A Class says what the calls of a class get.
type Class struct {
	// Priority orders classes, the higher first. 0 means that there is no such
	// class.
	Priority int
	// Share is the guaranteed part of the permits and places, from 0 to 1.
	Share float64
	// Max bounds the permits and places of the class; 0 means no bound.
	Max float64
}

// A Config configures a Queue.
type Config struct {
	Classes [MaxClasses]Class
	// Places is how many calls may wait at most. Without places nobody waits.
	Places int
	// MaxWait is how long a call may wait; 0 means no bound.
	MaxWait time.Duration
	// Block lets every caller wait, whatever the places and however long.
	Block bool
}

// A Room is what there is to share out at the moment of a decision.
type Room struct {
	// Limit is how many permits there are, InFlight how many are in use.
	Limit, InFlight int
	// Now is the time on the owner's clock. It never goes back.
	Now time.Duration
	// Pace is the mean time between two permits that come back while all are in
	// use; 0 if it is not known.
	Pace time.Duration
}

// A Call is what a queue is told of a call. Its class exists, and its cost is
// from 1 to the limit.
type Call struct {
	Class  int
	Tenant string
	Cost   int
}

// A Reason says why a call is refused.
type Reason uint8

// The reasons are described in package admit.
const (
	QueueFull Reason = iota
	Displaced
	DeadlineTooClose
	OverShare
)

// A Queue is the calls that wait for permits, and the ledger of those that hold
// them. It is not safe for concurrent use. Use [New].
type Queue struct {
	cfg     Config
	order   []int // the classes that exist, by falling priority
	counted bool  // a class has a share or a bound: every claim must be counted

	lines    [MaxClasses]line
	n        int    // calls that wait
	seq      uint64 // calls that have waited so far
	tenants  map[tenantKey]*Tenant
	spare    []*Tenant
	stranger Tenant // of a call whose tenant has no other
}

// New returns a queue in which nobody waits.
func New(cfg Config) *Queue {
	q := &Queue{tenants: map[tenantKey]*Tenant{}}
	for i := range q.lines {
		q.lines[i].init(i)
	}
	q.Configure(cfg)
	return q
}

// Configure changes the rules for all decisions from now on. Call
// [Queue.Excess] afterwards for the calls that have no place any more.
func (q *Queue) Configure(cfg Config) {
	q.cfg, q.order, q.counted = cfg, nil, false
	for c, class := range cfg.Classes {
		if class.Priority > 0 {
			q.order = append(q.order, c)
		}
		q.counted = q.counted || class.Share > 0 || q.bounded(c)
	}
	slices.SortStableFunc(q.order, func(a, b int) int { return cfg.Classes[b].Priority - cfg.Classes[a].Priority })
}

// Counted reports whether the queue must see every claim, because a class has a
// share or a bound.
func (q *Queue) Counted() bool { return q.counted }

// Len is how many calls wait.
func (q *Queue) Len() int { return q.n }

// Waiting is how many calls of a class wait.
func (q *Queue) Waiting(class int) int { return q.lines[class].n }

// Held is how many permits calls of a class hold, as far as that is counted.
func (q *Queue) Held(class int) int { return q.lines[class].held }

// Tenants is how many named tenants have calls that run or wait.
func (q *Queue) Tenants() int { return len(q.tenants) }

// Standing reports whether the queue stands for a class, so that only few calls
// of it may wait.
func (q *Queue) Standing(class int) bool { return q.lines[class].state.stands }

// Any returns a call that waits, or nil.
func (q *Queue) Any() *Waiter {
	for i := range q.lines {
		if l := &q.lines[i]; l.n > 0 {
			return l.needy.tenants[0].calls.first
		}
	}
	return nil
}

// Urgent returns the class of the highest priority of which a call waits for
// permits that others than its own class hold, and whether there is one.
func (q *Queue) Urgent(r Room) (class int, ok bool) {
	for _, c := range q.order {
		if l := &q.lines[c]; l.n > 0 {
			if first := l.needy.tenants[0]; q.mayHold(first, min(first.calls.first.Cost, r.Limit), r) {
				return c, true
			}
		}
	}
	return 0, false
}

// guaranteed returns how many of n permits or places are a class's own.
func (q *Queue) guaranteed(class, n int) int { return portion(q.cfg.Classes[class].Share, n) }

// bounded reports whether a class may not have all permits.
func (q *Queue) bounded(class int) bool {
	c := &q.cfg.Classes[class]
	return c.Max > 0 && c.Max < 1
}

// most returns how many of n permits or places a class may have.
func (q *Queue) most(class, n int) int {
	if !q.bounded(class) {
		return n
	}
	return max(1, portion(q.cfg.Classes[class].Max, n))
}

// portion returns the whole part of a share of n, but for rounding errors of
// floating point.
func portion(share float64, n int) int { return int(share*float64(n) + 1e-9) }

// outranks reports whether a line is of a higher priority than another.
func (q *Queue) outranks(l, other *line) bool {
	return q.cfg.Classes[l.class].Priority > q.cfg.Classes[other.class].Priority
}
