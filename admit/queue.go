package admit

import "time"

// A waiter is a call in the queue. Its fields are guarded by the gate's lock,
// but for ready, which carries the verdict, once.
type waiter struct {
	ready      chan *Refusal // nil: the permit is yours
	prev, next *waiter
	class      Class
	queued     bool
	since      time.Duration // when it began to wait, on the gate's clock
	deadline   time.Duration // its context's deadline on that clock, or 0
	granted    time.Duration // when it was given a permit
	timer      *time.Timer
}

// A list is the waiters of one class, oldest first.
type list struct {
	first, last *waiter
	n           int
}

// A queue is what waits for permits: a list for each class. The gate's lock
// guards it.
type queue struct {
	ranks [classes]list
	n     int
}

func (q *queue) push(w *waiter) {
	l := &q.ranks[w.class.rank()]
	w.prev, w.next, w.queued = l.last, nil, true
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.n++
	q.n++
}

func (q *queue) remove(w *waiter) {
	l := &q.ranks[w.class.rank()]
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
	q.n--
}

// next returns who is to be served next: of the first class that waits its
// oldest call, or its newest.
func (q *queue) next(newest bool) *waiter {
	for i := range q.ranks {
		if l := &q.ranks[i]; l.n > 0 {
			if newest {
				return l.last
			}
			return l.first
		}
	}
	return nil
}

// last returns who is to make room first: of the last class that waits its
// oldest call.
func (q *queue) oldestOfLast() *waiter {
	for i := len(q.ranks) - 1; i >= 0; i-- {
		if q.ranks[i].n > 0 {
			return q.ranks[i].first
		}
	}
	return nil
}

// ahead counts the calls that a newcomer of class c finds before it, served in
// the order in which they came.
func (q *queue) ahead(c Class) int {
	n := 0
	for i := 0; i <= c.rank(); i++ {
		n += q.ranks[i].n
	}
	return n
}
