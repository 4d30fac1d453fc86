package turn

import (
	"slices"
	"time"
)

// A queue is good while it drains and bad while it stands (Nichols and Jacobson,
// "Controlling Queue Delay", ACM Queue 10(5), 2012). A queue that drains absorbs bursts,
// so it takes every call that can be served in time. A queue that stands only makes calls
// late. It takes just enough calls to hide the hand-over of a permit, and refuses other
// newcomers at once.
const (
	// period is the shortest period after which the queue is judged. It stands after
	// this many bad periods in a row.
	period  = 150 * time.Millisecond
	periods = 3
	// longestPeriod bounds the period where calls are long. A period is at least as
	// long as a call.
	longestPeriod = 500 * time.Millisecond
	// idlePart is the part of a period during which the queue must be empty to count as
	// drained, as 1 in idlePart. A queue that clearly becomes shorter drains as well.
	idlePart = 5
	// longestPause is how long the queue may grow because no call is served, and longestProbe
	// how long because the limit is lowered to measure the server.
	longestPause = time.Second
	longestProbe = 2 * period
)

// handOver returns the number of waiters of a queue that stands. There is one for each
// permit, and there are at least four, so that a permit that comes back finds a waiter.
func handOver(limit int) int { return max(4, limit) }

// A standing tells whether the queue stands for one class. It counts the calls of the class
// and of the classes that compete with it. A period is bad if more calls came than were served,
// and the queue was never empty or became empty only because waiters were lost. Each
// difference must exceed chance, which is the square root of the number served. A period
// does not count if no call was served in it, for longestPause, or if the limit was lowered
// to measure the server, for longestProbe.
type standing struct {
	begun         time.Duration // of the period
	seen          time.Duration // time of the last update
	idle          time.Duration // time in the period during which the queue was empty
	asked, served int           // the totals at the beginning of the period
	lost          int           // the same: calls that came and were neither served nor wait
	bad           int           // bad periods in a row
	stands        bool
	probed        bool          // the limit was lowered for a moment in the period
	excused       time.Duration // of periods that do not count, since one was good
}

// A queue that stands has no waiters at all for bareTime, if the processors are scarce. Then
// it has some again for a period and a little more, because nothing else tells whether it still
// stands.
const (
	bareTime = 450 * time.Millisecond
	lookTime = 50 * time.Millisecond
)

// Crowd tells the queue whether goroutines wait for processors, so that the hand-over of a
// permit needs no waiters. The next calls are in the Go scheduler and in the network's buffers
// then. A waiter does harm there. It becomes runnable when a call ends, so the processors have
// no moment in which they look at the network, and all calls wait before they reach the queue.
// Call Crowd from time to time.
func (q *Queue) Crowd(r Room, crowded bool) {
	q.scarce = crowded
	switch {
	case q.bare && (!crowded || r.Now >= q.bareUntil):
		q.see(r)
		q.bare, q.bareUntil = false, r.Now+periodOf(r)+lookTime
	case !q.bare && crowded && r.Now >= q.bareUntil && q.standing():
		q.bare, q.bareUntil = true, r.Now+bareTime
	}
}

// standing reports whether the queue stands for some class.
func (q *Queue) standing() bool {
	return slices.ContainsFunc(q.order, func(c int) bool { return q.lines[c].state.stands })
}

// handOver returns the number of waiters for whose class the queue stands.
func (q *Queue) handOver(limit int) int {
	if q.bare {
		return 0
	}
	return handOver(limit)
}

// periodOf returns the length of a period.
func periodOf(r Room) time.Duration {
	return min(max(period, r.Lasts), longestPeriod)
}

// see updates the states of all classes. Call it before the number of waiters changes.
func (q *Queue) see(r Room) {
	r.Probing = r.Probing && !q.scarce // processors that are scarce are evidence enough
	for _, c := range q.order {
		l, n, asked, served := &q.lines[c], 0, 0, 0
		for _, i := range q.order {
			if other := &q.lines[i]; q.competes(other, l) {
				n, asked, served = n+other.n, asked+other.asked, served+other.served
			}
		}
		l.state.see(r, n, asked, served, q.bare)
	}
}

// competes reports whether the waiters of a line keep permits from a class. The waiters of the
// class itself do, and the ones of its priority and above, unless they wait for the bound of
// their own class.
func (q *Queue) competes(l, with *line) bool {
	return l == with || !q.bounded(l.class) && !q.outranks(with, l)
}

// see updates the state from the number of waiters and the totals of calls that came and
// were served. While the queue is bare, a queue that stands goes on standing.
func (s *standing) see(r Room, n, asked, served int, bare bool) {
	now := max(r.Now, s.seen) // the clock may have been read before the lock was taken
	if n == 0 {
		s.idle += now - s.seen
	}
	s.seen = now
	lost := asked - served - n
	if bare && s.stands || n == 0 && !s.stands && lost == s.lost { // a new period begins, as a rule with an empty queue
		*s = standing{begun: now, seen: now, asked: asked, served: served, lost: lost, probed: r.Probing, stands: s.stands}
		return
	}
	s.probed = s.probed || r.Probing
	length, least := now-s.begun, periodOf(r)
	if length < least {
		return
	}
	grown, done := asked-s.asked-(served-s.served), served-s.served
	more := grown > 0 && beyondChance(grown, done)
	switch {
	case s.idle >= least: // no call came for as long, so the totals are of another time
		s.stands, s.bad, s.excused = false, 0, 0
	case more && s.stands: // it stands, however few wait
	case s.idle*idlePart >= length, grown < 0 && beyondChance(grown, done):
		s.stands, s.bad, s.excused = false, 0, 0
	case done == 0 && s.excused < longestPause, s.probed && s.excused < longestProbe: // the server may serve them all afterwards
		s.excused += length
	case done == 0 && more:
		s.stands = true
	case !more, s.idle > 0 && !beyondChance(lost-s.lost, done):
		s.bad, s.excused = 0, 0
	default:
		s.bad++
		s.stands = s.stands || s.bad >= periods
	}
	s.begun, s.idle, s.asked, s.served, s.lost, s.probed = now, 0, asked, served, lost, r.Probing
}

// beyondChance reports whether a difference exceeds the square root of a number.
func beyondChance(difference, n int) bool {
	return int64(difference)*int64(difference) > int64(n)
}
