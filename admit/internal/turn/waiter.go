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

	tenant *Tenant
	links  [lists]link // by list
	queued bool
	seq    uint64
}

// A waiter is in two lists.
const (
	ofTenant = iota
	ofClass
	lists
)

// A link is the place of a waiter in a list.
type link struct{ prev, next *Waiter }

// Queued reports whether the waiter is in the queue.
func (w *Waiter) Queued() bool { return w.queued }

// A list holds the waiters of a tenant or of a class, oldest first. The zero list is that of
// a tenant.
type list struct {
	of          uint8 // ofTenant or ofClass
	first, last *Waiter
	n           int
}

func (l *list) push(w *Waiter) {
	w.links[l.of] = link{prev: l.last}
	if l.last == nil {
		l.first = w
	} else {
		l.last.links[l.of].next = w
	}
	l.last = w
	l.n++
}

func (l *list) remove(w *Waiter) {
	at := w.links[l.of]
	if at.prev == nil {
		l.first = at.next
	} else {
		at.prev.links[l.of].next = at.next
	}
	if at.next == nil {
		l.last = at.prev
	} else {
		at.next.links[l.of].prev = at.prev
	}
	w.links[l.of] = link{}
	l.n--
}
