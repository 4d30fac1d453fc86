package turn

import (
	"slices"
	"time"
)

// roomy is the smallest number of places with which the last waiter of each class is not
// evicted. A low class then has a waiter when it is passed over too often.
const roomy = 2 * MaxClasses

// A Verdict is the decision about a newcomer for which no permit is free.
type Verdict struct {
	// Wait tells whether the newcomer may wait. Otherwise it is refused because of Why.
	Wait bool
	Why  Reason
	// Evict is the waiter that is refused because of Why to make room, or nil.
	Evict *Waiter
	// Trial tells that the call may wait, although a guess says that it cannot end in
	// time. It tests the guess.
	Trial bool
}

// Ask decides whether a newcomer may wait. The deadline is on the clock of Now, and 0 if
// there is none. Least is the shortest time that a call of its class takes, and 0 if it is
// not known.
func (q *Queue) Ask(c Call, r Room, deadline, least time.Duration) (v Verdict) {
	q.see(r)
	l := &q.lines[c.Class]
	l.asked++
	wait := q.wait(c, r)
	if deadline > 0 && r.Now+wait+least >= deadline {
		if v.Trial = r.Now+wait < deadline && l.tries(); !v.Trial {
			return Verdict{Why: DeadlineTooClose}
		}
	}
	if q.cfg.Block {
		v.Wait = true
		return v
	}
	patience := q.cfg.MaxWait
	if deadline > 0 && (patience == 0 || deadline-r.Now < patience) {
		patience = deadline - r.Now
	}
	switch {
	case q.boundWait(c, r, patience):
		return Verdict{Why: q.blameBound(c, r.Limit)}
	case q.cfg.MaxWait > 0 && wait+r.Pace/2 >= q.cfg.MaxWait: // half a pace: the next permit comes at a random time
		return Verdict{Why: q.blame(c, r.Limit)}
	}
	beyond := q.beyondHandOver(c, r.Limit)
	if v.Evict, v.Why, v.Wait = q.place(c, r.Limit); v.Evict != nil {
		v.Wait = true
		beyond = beyond || q.outranks(v.Evict.tenant.line, l)
	}
	if v.Wait && beyond && l.n == 0 {
		l.placed = l.passed // not again soon if it leaves
	}
	return v
}

// trialOf is the number of guesses of which one is tested.
const trialOf = 8

// tries counts a guess and reports whether to test it.
func (l *line) tries() bool {
	l.guesses++
	return l.guesses%trialOf == 0
}

// place finds a place for a newcomer. If ok, a place is free. If out is not nil, the
// newcomer gets the place of out, which is evicted because of why. Otherwise the newcomer
// is refused because of why.
func (q *Queue) place(c Call, limit int) (out *Waiter, why Reason, ok bool) {
	places := q.cfg.Places
	if places == 0 {
		return nil, QueueFull, false
	}
	if q.beyondHandOver(c, limit) && !q.entitled(c, limit) {
		if q.lines[c.Class].n == 0 {
			return nil, q.blame(c, limit), false
		}
		out, why = q.victimWithin(c, limit)
		return out, why, false
	}
	if q.n < places && !q.crowded(c.Class, places) {
		return nil, 0, true
	}
	out, why = q.victim(c, places, limit)
	return out, why, false
}

// beyondHandOver reports whether the queue stands for a newcomer and has enough waiters for the
// hand-over among the classes that compete with its class.
func (q *Queue) beyondHandOver(c Call, limit int) bool {
	l := &q.lines[c.Class]
	if !l.state.stands {
		return false
	}
	n := 0
	for _, i := range q.order {
		if other := &q.lines[i]; q.competes(other, l) {
			n += other.n
		}
	}
	return n >= q.handOver(limit)
}

// entitled reports whether a newcomer may wait even if the queue stands. It may if its
// class is below its share or starves, or if its tenant has less than an equal part of
// the permits and places of the class.
func (q *Queue) entitled(c Call, limit int) bool {
	l := &q.lines[c.Class]
	switch {
	case q.owed(l, l.weight(), l.n, fairPlaces, limit):
		return true
	case l.n == 0 && l.passed-l.placed >= progress:
		return true
	case c.Tenant == "" && l.named == 0:
		return false
	}
	weight, tenants := q.with(c)
	return tenants > 1 && weight*tenants <= int64(q.most(c.Class, limit)+q.most(c.Class, fairPlaces))
}

// with returns the weight of the tenant of a newcomer and the number of tenants of its class, the
// newcomer included.
func (q *Queue) with(c Call) (weight, tenants int64) {
	weight, tenants = int64(c.Cost), int64(q.lines[c.Class].active())
	t := q.find(c.Class, c.Tenant)
	if t == nil || t.idle() {
		return weight, tenants + 1
	}
	return weight + t.weight(), tenants
}

// Full reports whether a newcomer of some class would be refused or evict a waiter.
func (q *Queue) Full(limit int) bool {
	if q.cfg.Block || q.n >= q.cfg.Places {
		return !q.cfg.Block
	}
	for _, c := range q.order {
		if q.beyondHandOver(Call{Class: c}, limit) {
			return true
		}
	}
	return false
}

// crowded reports whether a bounded class has as many waiters as it may.
func (q *Queue) crowded(class, places int) bool {
	return q.bounded(class) && q.lines[class].n >= q.most(class, places)
}

// victim chooses the waiter that is evicted for a newcomer. If it returns nil, the newcomer
// is refused. The lowest class makes room, but not for a call of its own priority. Within
// a class, the tenant with the largest weight makes room.
func (q *Queue) victim(c Call, places, limit int) (*Waiter, Reason) {
	own, roomy := &q.lines[c.Class], places >= roomy
	switch {
	case q.crowded(c.Class, places):
		return q.victimWithin(c, limit)
	case q.n == 0:
		return nil, QueueFull
	case q.n == own.n: // no other class could make room
		return q.victimWithin(c, limit)
	}
	spared := func(l *line) bool {
		return l != own && l.n == 1 && (roomy || l.passed >= progress)
	}
	owed := q.owed(own, own.weight(), own.n, places, limit)
	from := q.lowest(func(l *line) bool {
		if l == own {
			return !owed
		}
		return !spared(l) && !q.withinShare(l, places, limit)
	})
	if from == nil && owed { // every class is below its share, so priority decides
		owed = false
		from = q.lowest(func(l *line) bool { return !spared(l) })
	}
	switch {
	case from == nil:
		return nil, QueueFull
	case from == own:
		return q.victimWithin(c, limit)
	case owed, q.outranks(own, from):
	case places > 1 && own.n == 0 && own.passed-own.placed >= progress: // it starves
	default:
		return nil, q.blame(c, limit)
	}
	return from.heaviest().calls.first, Evicted
}

// victimWithin is victim within a class. A tenant makes room if its weight is larger than
// that of the newcomer's tenant.
func (q *Queue) victimWithin(c Call, limit int) (*Waiter, Reason) {
	l := &q.lines[c.Class]
	heaviest := l.heaviest()
	weight, tenants := q.with(c)
	switch most := heaviest.weight(); {
	case q.find(c.Class, c.Tenant) == heaviest, weight > most:
		return nil, q.overShare(c.Class, weight, tenants, limit, QueueFull)
	case weight == most:
		return nil, QueueFull
	default:
		return heaviest.calls.first, q.overShare(c.Class, most, tenants, limit, Evicted)
	}
}

// lowest returns the line of the lowest priority that has waiters and for which may
// returns true, or nil. Among several, the oldest waiter decides.
func (q *Queue) lowest(may func(*line) bool) (lowest *line) {
	for _, c := range slices.Backward(q.order) {
		l := &q.lines[c]
		if lowest != nil && q.outranks(l, lowest) {
			break
		}
		if l.n > 0 && may(l) && (lowest == nil || sooner(l.heaviest().calls.first, lowest.heaviest().calls.first)) {
			lowest = l
		}
	}
	return lowest
}

// owed reports whether a class is below its share. Permits are held and wanted, and n is
// its number of waiters.
func (q *Queue) owed(l *line, permits int64, n, places, limit int) bool {
	return q.counted && (permits < int64(q.guaranteed(l.class, limit)) || n < q.guaranteed(l.class, places))
}

// withinShare reports whether a class would be below its share without the waiter that it
// would lose first.
func (q *Queue) withinShare(l *line, places, limit int) bool {
	return q.owed(l, l.weight()-int64(l.heaviest().calls.first.Cost), l.n-1, places, limit)
}

// blame returns OverShare if the tenant of a newcomer has more than an equal part, the newcomer
// included. Otherwise it returns QueueFull.
func (q *Queue) blame(c Call, limit int) Reason {
	weight, tenants := q.with(c)
	return q.overShare(c.Class, weight, tenants, limit, QueueFull)
}

// blameBound is blame for a newcomer that would wait for the bound of its tenant for too long.
func (q *Queue) blameBound(c Call, limit int) Reason {
	if t := q.find(c.Class, c.Tenant); t.holdsMost() {
		return OverShare
	}
	return q.blame(c, limit)
}

// fairPlaces is the smallest number of places that counts for the equal parts of tenants.
const fairPlaces = 32

// overShare returns OverShare if a weight is more than an equal part of the permits and
// places of a class with so many tenants. Otherwise it returns the other reason.
func (q *Queue) overShare(class int, weight, tenants int64, limit int, otherwise Reason) Reason {
	places := min(q.cfg.Places, max(fairPlaces, limit))
	if tenants > 1 && weight*tenants > int64(q.most(class, limit)+q.most(class, places)) {
		return OverShare
	}
	return otherwise
}

// Excess returns a waiter that is to be refused because there are fewer places now, or nil.
func (q *Queue) Excess(limit int) *Waiter {
	if q.cfg.Block {
		return nil
	}
	places := q.cfg.Places
	for i := range q.lines {
		if l := &q.lines[i]; l.n > q.most(i, places) {
			return l.heaviest().calls.first
		}
	}
	if q.n <= places {
		return nil
	}
	from := q.lowest(func(l *line) bool { return !q.withinShare(l, places, limit) })
	if from == nil {
		from = q.lowest(func(*line) bool { return true })
	}
	return from.heaviest().calls.first
}
