package turn

import "time"

// A queue is good while it drains and bad while it stands (Nichols and Jacobson,
// "Controlling Queue Delay", ACM Queue 10(5), 2012). A queue that drains absorbs
// bursts, so it takes every call that can be served in time. A queue that stands
// only makes calls late: then it takes no more than hide the hand-over of a
// permit, and newcomers are refused at once.
const (
	// period is the shortest time after which it is judged whether the queue
	// stands; periods of evidence without a pause are needed to say so.
	period  = 150 * time.Millisecond
	periods = 3
	// longestPeriod bounds it where calls take longer than that: a period is not
	// shorter than a call takes.
	longestPeriod = 500 * time.Millisecond
	// idlePart is the part of a period, 1 in so many, for which the queue must
	// be empty before it counts as drained, unless it clearly becomes shorter.
	idlePart = 5
)

// handOver is how many calls wait while the queue stands, so that a permit that
// comes back finds a call: one for each permit, and at least four.
func handOver(limit int) int { return max(4, limit) }

// A standing tells a queue that stands from one that drains, as calls of one
// class see it: it counts those of their priority and above. Periods follow one
// another. A period tells against the queue if it never was empty, and if more
// calls came than were served, by more than chance (the square root of their
// number) explains.
type standing struct {
	begun         time.Duration // of the period
	seen          time.Duration // up to when idle is counted
	idle          time.Duration // for which no call waited within the period
	asked, served int           // the totals when the period began
	bad           int           // periods that told against the queue, without a pause
	stands        bool
}

// see brings the states of all classes up to date. Call it before the number of
// calls that wait changes.
func (q *Queue) see(r Room) {
	n, asked, served := 0, 0, 0
	for i := 0; i < len(q.order); {
		first := i // of the classes of one priority
		for ; i < len(q.order) && !q.outranks(&q.lines[q.order[first]], &q.lines[q.order[i]]); i++ {
			l := &q.lines[q.order[i]]
			n, asked, served = n+l.n, asked+l.asked, served+l.served
		}
		for _, c := range q.order[first:i] {
			q.lines[c].state.see(r, n, asked, served)
		}
	}
}

// see is told how many calls wait, and how many have come and been served so far.
func (s *standing) see(r Room, n, asked, served int) {
	now := max(r.Now, s.seen) // it may have been read before the lock was taken
	if n == 0 {
		s.idle += now - s.seen
	}
	s.seen = now
	if n == 0 && !s.stands { // what follows begins with an empty queue
		*s = standing{begun: now, seen: now, asked: asked, served: served}
		return
	}
	length := now - s.begun
	if length < min(max(period, time.Duration(r.Limit)*r.Pace), longestPeriod) {
		return
	}
	grown, done := asked-s.asked-(served-s.served), served-s.served
	more := grown > 0 && grown*grown > done
	switch {
	case more && s.stands: // however short it is kept
	case s.idle*idlePart >= length, grown < 0 && grown*grown > done:
		s.stands, s.bad = false, 0
	case s.idle > 0, !more:
		s.bad = 0
	default:
		s.bad++
		s.stands = s.stands || s.bad >= periods
	}
	s.begun, s.idle, s.asked, s.served = now, 0, asked, served
}
