package streamcredit

import "time"

const (
	// idleReport is the delay after which an idle receiver reports consumed elements.
	idleReport = 100 * time.Millisecond
	// promptFirst is the number of elements that a server reports one by one. promptEvery is the
	// interval of its reports while more elements wait. See promptLocked. A report costs a few
	// microseconds.
	promptFirst = 16
	promptEvery = 100 * time.Microsecond
)

// armLocked schedules a report of consumed elements, if nothing arrives before. A receiver with
// explicit consumption reports even if something arrives, since it may leave that unread.
func (r *incoming[I]) armLocked() {
	r.idleAt = r.ledger.Received()
	if r.idle == nil {
		r.idle = time.AfterFunc(idleReport, r.fire)
	} else {
		r.idle.Reset(idleReport)
	}
}

// fire makes the report that armLocked has scheduled.
func (r *incoming[I]) fire() {
	r.mu.Lock()
	l := &r.ledger
	still := (r.explicit || r.idleAt == l.Received()) && r.consumed.Load() > l.Reported() && !l.State().Drops()
	if still {
		r.askLocked(0, false)
	}
	r.mu.Unlock()
	if still {
		r.report()
	}
}

// promptLocked reports whether a report is due at once, because the handler may return now and
// nothing can be written after that. The first elements are reported one by one. Then a report is
// due whenever no element is left, so that a client can tell a handler that has consumed
// everything from one that has not. A report is also due every promptEvery, so that the reports
// of a slow handler are complete. There are no more reports than elements, so they are not a
// flood.
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
