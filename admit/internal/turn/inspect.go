package turn

import (
	"iter"
	"slices"
)

// The methods in this file describe the queue to people. No decision uses them.

// Oldest returns the waiters of a class, the one that has waited longest first. The queue may
// change between two steps of the iteration.
func (q *Queue) Oldest(class int) iter.Seq[*Waiter] {
	return func(yield func(*Waiter) bool) {
		line := &q.lines[class].list
		for w := line.first; w != nil; {
			seq := w.seq
			if !yield(w) {
				return
			}
			if w.queued && w.seq == seq {
				w = w.links[ofClass].next
				continue
			}
			w = line.first // it has left
			for w != nil && w.seq < seq {
				w = w.links[ofClass].next
			}
		}
	}
}

// First returns the waiter of a class that has waited longest, or nil if there is none.
func (q *Queue) First(class int) *Waiter { return q.lines[class].first }

// Bound returns the number of permits that a class may hold by its Max. It is 0 if Max does not
// bound the class.
func (q *Queue) Bound(class, limit int) int {
	if !q.bounded(class) {
		return 0
	}
	return q.most(class, limit)
}

// A Load counts the calls of a tenant.
type Load struct {
	Class         int
	Tenant        string
	Held, Waiting int // permits, and waiters
}

// Loads returns the tenants with calls, once around. It begins where the last iteration ended.
// Calls without a tenant are left out. The queue may change between two steps of the iteration.
// A tenant that comes or goes meanwhile may be missing. Two iterations at once share the tenants.
func (q *Queue) Loads() iter.Seq[Load] {
	return func(yield func(Load) bool) {
		for range len(q.tenants) {
			t := q.shown
			if t == nil {
				return
			}
			q.shown = t.after // forget moves it on if that tenant goes
			if !yield(Load{t.line.class, t.key, t.held, t.calls.n}) {
				return
			}
		}
	}
}

// Heaviest returns up to n tenants of a class that have waiters, the tenant with the largest
// weight first. Calls without a tenant are left out. The queue must not change between two steps
// of the iteration.
func (q *Queue) Heaviest(class, n int) iter.Seq[Load] {
	return func(yield func(Load) bool) {
		r := &q.lines[class].heavy
		var room [32]int
		next := room[:0] // places in the heap, each of them behind the ones that were seen
		add := func(at int) {
			if at < r.Len() {
				next = append(next, at)
			}
		}
		for add(0); n > 0 && len(next) > 0; {
			at := slices.MinFunc(next, r.compare)
			next = slices.DeleteFunc(next, func(i int) bool { return i == at })
			add(2*at + 1)
			add(2*at + 2)
			t := r.tenants[at]
			if t.key == "" {
				continue
			}
			if n--; !yield(Load{class, t.key, t.held, t.calls.n}) {
				return
			}
		}
	}
}
