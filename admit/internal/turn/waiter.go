package turn

import "time"

// A Waiter is a call in the queue. Set Owner once, and the other exported fields before
// each [Queue.Join]. A Waiter may be reused after it has left the queue.
type Waiter struct {
	Owner    any // for the caller's use
	Class    int
	Cost     int
	Since    time.Duration // when it began to wait
	Deadline time.Duration // when its caller gives up, or 0
	// Trial is Verdict.Trial.
	Trial bool

	tenant     *Tenant
	prev, next *Waiter // of the tenant
	queued     bool
	seq        uint64

	older, newer *Waiter // of the class
}

// Queued reports whether the waiter is in the queue.
func (w *Waiter) Queued() bool { return w.queued }

// A list holds the waiters of a tenant, oldest first.
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
