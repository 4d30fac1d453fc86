package streamcredit

import "time"

const (
	// idleReport is how soon a receiver that has nothing to do reports what it is done with.
	idleReport = 100 * time.Millisecond
	// promptFirst is how many elements a server reports one by one, and promptEvery how often it
	// reports while more elements wait: see promptLocked. A report costs a few microseconds.
	promptFirst = 16
	promptEvery = 100 * time.Microsecond
)

// armLocked has consumed elements reported soon, if nothing arrives before.
func (r *incoming[I]) armLocked() {
	r.idleAt = r.ledger.Received()
	if r.idle == nil {
		r.idle = time.AfterFunc(idleReport, r.fire)
	} else {
		r.idle.Reset(idleReport)
	}
}

// fire reports what is consumed if nothing has arrived since armLocked.
func (r *incoming[I]) fire() {
	r.mu.Lock()
	l := &r.ledger
	still := r.idleAt == l.Received() && r.consumed.Load() > l.Reported() && !l.State().Drops()
	if still {
		r.askLocked(0, false)
	}
	r.mu.Unlock()
	if still {
		r.report()
	}
}

// promptLocked reports whether a report is due at once, because the handler may return now. On a
// server nothing can be written after that. The first elements are reported one by one. Then a
// report is due whenever no element is left, so that a client can tell a handler that has consumed
// everything from one that has not, and every promptEvery, so that a handler that takes its time is
// reported to the last element. There are no more reports than elements, so they are no flood.
func (r *incoming[I]) promptLocked() bool {
	consumed, l := r.consumed.Load(), &r.ledger
	if !r.exact.Load() || l.State().Drops() || consumed <= l.Reported() {
		return false
	}
	if consumed > promptFirst && l.Received() != r.seen.Load() && time.Since(r.prompted) < promptEvery {
		return false
	}
	r.prompted = time.Now()
	return true
}

// waver tells the sender that more may be consumed than was reported.
func (r *incoming[I]) waver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exact.Swap(false) {
		r.lapse()
		r.aimLocked()
	}
}

// steady makes the sender rely on reports again.
func (r *incoming[I]) steady() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exact.Store(true)
	r.aimLocked()
	if r.consumed.Load() > r.ledger.Reported() {
		r.askLocked(0, false)
	}
}
