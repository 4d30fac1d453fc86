package turn

import (
	"slices"
	"time"
)

// roomy is the number of places from which on a queue spares the last waiting
// call of each class, so that low classes have a call there when their turn comes.
const roomy = 2 * MaxClasses

// A Verdict says what becomes of a newcomer for which no permit is free.
type Verdict struct {
	// Wait tells whether it may wait. If not, Why says why.
	Wait bool
	Why  Reason
	// Evict is the waiting call that is refused to make room, because of Why, or
	// nil.
	Evict *Waiter
	// Trial tells that a guess speaks against the call, and that it is let in to
	// test the guess.
	Trial bool
}

// Ask decides whether a newcomer may wait. The deadline is on the same clock as
// Now, 0 for none; least is the shortest time that a call of its class takes, 0
// if that is not known.
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
	case q.ownWait(c, r, patience):
		return Verdict{Why: OverShare}
	case q.cfg.MaxWait > 0 && wait+r.Pace/2 >= q.cfg.MaxWait: // and then for the next permit
		return Verdict{Why: q.blame(c, r.Limit, QueueFull)}
	}
	beyond := q.beyondHandOver(c, r.Limit)
	if v.Evict, v.Why, v.Wait = q.place(c, r.Limit); v.Evict != nil {
		v.Wait = true
		beyond = beyond || q.outranks(v.Evict.tenant.line, l)
	}
	if v.Wait && beyond && l.n == 0 {
		l.placed = l.passed // not again at once if it does not stay
	}
	return v
}

// trialOf is how many calls are refused because of a guess for each that is let
// in to test it.
const trialOf = 8

// tries counts a guess and reports whether it is to be tested.
func (l *line) tries() bool {
	l.guesses++
	return l.guesses%trialOf == 0
}

// place finds a place for a newcomer: a free one, if ok, or that of a call which
// is evicted for it because of why. Otherwise why says why there is none.
func (q *Queue) place(c Call, limit int) (out *Waiter, why Reason, ok bool) {
	places := q.cfg.Places
	if places == 0 {
		return nil, QueueFull, false
	}
	if q.beyondHandOver(c, limit) && !q.entitled(c, limit) {
		if q.lines[c.Class].n == 0 {
			return nil, q.blame(c, limit, QueueFull), false
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

// beyondHandOver reports whether the queue stands for a newcomer and so many
// calls of its priority and above wait as the hand-over needs.
func (q *Queue) beyondHandOver(c Call, limit int) bool {
	l := &q.lines[c.Class]
	if !l.state.stands {
		return false
	}
	n := 0
	for _, i := range q.order {
		if other := &q.lines[i]; !q.outranks(l, other) {
			n += other.n
		}
	}
	return n >= handOver(limit)
}

// entitled reports whether a newcomer may wait even if the queue stands: its
// class is below its share or starves, or its tenant has less than an equal part
// of what its class can have.
func (q *Queue) entitled(c Call, limit int) bool {
	l := &q.lines[c.Class]
	switch {
	case q.owed(l, l.held+l.wants, l.n, fairPlaces, limit):
		return true
	case l.n == 0 && l.passed-l.placed >= progress:
		return true
	case c.Tenant == "" && l.named == 0:
		return false
	}
	weight, tenants := c.Cost, l.active()
	if t := q.find(c.Class, c.Tenant); t == nil || t.idle() {
		tenants++
	} else {
		weight += t.weight()
	}
	return tenants > 1 && weight*tenants <= q.most(c.Class, limit)+q.most(c.Class, fairPlaces)
}

// Full reports whether a newcomer of some class would be refused or evict a
// waiting call.
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

// crowded reports whether so many calls of a bounded class wait as may.
func (q *Queue) crowded(class, places int) bool {
	return q.bounded(class) && q.lines[class].n >= q.most(class, places)
}

// victim decides which call is refused because the places are taken: a waiting
// one, or the newcomer if that is nil. The lowest class makes room, but not for
// a call of its own priority; within a class the tenant that takes the most.
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
	owed := q.owed(own, own.held+own.wants, own.n, places, limit)
	from := q.lowest(func(l *line) bool {
		if l == own {
			return !owed
		}
		return !spared(l) && !q.withinShare(l, places, limit)
	})
	if from == nil && owed { // all others are owed theirs as well: priority decides
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
		return nil, q.blame(c, limit, QueueFull)
	}
	return from.heaviest().calls.first, Displaced
}

// victimWithin is victim within a class: the tenant that takes more than that of
// the newcomer makes room.
func (q *Queue) victimWithin(c Call, limit int) (*Waiter, Reason) {
	l := &q.lines[c.Class]
	heaviest, t := l.heaviest(), q.find(c.Class, c.Tenant)
	weight := c.Cost
	if t != nil {
		weight += t.weight()
	}
	switch most := heaviest.weight(); {
	case t == heaviest, weight > most:
		return nil, q.overShare(c, weight, limit, QueueFull)
	case weight == most:
		return nil, QueueFull
	default:
		return heaviest.calls.first, q.overShare(c, most, limit, Displaced)
	}
}

// lowest returns the line of the lowest priority in which calls wait and that may
// be taken, or nil. Of several it is the one whose call has waited longest.
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

// owed reports whether a class with so many permits, held and wanted, and so many
// places has less of either than its share.
func (q *Queue) owed(l *line, permits, n, places, limit int) bool {
	return q.counted && (permits < q.guaranteed(l.class, limit) || n < q.guaranteed(l.class, places))
}

// withinShare reports whether a class would be below its share without the call
// that it would lose first.
func (q *Queue) withinShare(l *line, places, limit int) bool {
	return q.owed(l, l.held+l.wants-l.heaviest().calls.first.Cost, l.n-1, places, limit)
}

// blame returns OverShare if the tenant of a newcomer has, with it, more than its
// share, and otherwise the other reason.
func (q *Queue) blame(c Call, limit int, otherwise Reason) Reason {
	weight := c.Cost
	if t := q.find(c.Class, c.Tenant); t != nil {
		weight += t.weight()
	}
	return q.overShare(c, weight, limit, otherwise)
}

// fairPlaces is how many places tenants share, at least, when it is asked
// whether one of them has more than its share.
const fairPlaces = 32

// overShare returns OverShare if so much is more than an equal part of what the
// class of a newcomer can have, and otherwise the other reason.
func (q *Queue) overShare(c Call, weight, limit int, otherwise Reason) Reason {
	tenants := q.lines[c.Class].active()
	if t := q.find(c.Class, c.Tenant); t == nil || t.idle() {
		tenants++
	}
	places := min(q.cfg.Places, max(fairPlaces, limit))
	if tenants > 1 && weight*tenants > q.most(c.Class, limit)+q.most(c.Class, places) {
		return OverShare
	}
	return otherwise
}

// Excess returns a call that is refused because of Displaced, since places were
// taken away while it waited, or nil.
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
