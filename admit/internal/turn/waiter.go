package turn

import "time"

// A Waiter is a call in the queue. Set Owner once and the exported fields that
// describe the call before [Queue.Join]; a Waiter may be used again after it
// has left.
type Waiter struct {
	Owner    any // for whoever waits
	Class    int
	Cost     int
	Since    time.Duration // when it began to wait
	Deadline time.Duration // when its caller gives up, or 0
	// Trial marks a call that is served although a guess says that it cannot end
	// in time: see Verdict.Trial.
	Trial bool

	tenant     *Tenant
	prev, next *Waiter
	queued     bool
	seq        uint64
}

// Queued reports whether the call waits.
func (w *Waiter) Queued() bool { return w.queued }

// A list is the waiting calls of one tenant, oldest first.
type list struct {
	first, last *Waiter
	n           int
}

func (l *list) push(w *Waiter) {
	w.prev, w.next, w.queued = l.last, nil, true
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.n++
}

func (l *list) remove(w *Waiter) {
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
