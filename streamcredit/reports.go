package streamcredit

import "time"

const (
	// idleReport is how soon a receiver that has nothing to do reports what it is done with.
	idleReport = 100 * time.Millisecond
	// promptFirst is how many elements a server reports one by one. prompts is how many reports
	// it writes at once, besides one each idleReport: see promptLocked.
	promptFirst, prompts = 16, 64
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

// promptLocked reports whether a report is due at once, because the handler may return now:
// on a server nothing can be written after that. The first elements are reported one by one,
// and then whenever there are no more. That is too dear where elements follow each other
// closely: when the reports for it are used up, the sender is told not to be sure.
func (r *incoming[I]) promptLocked() bool {
	consumed, l := r.consumed.Load(), &r.ledger
	if !r.exact.Load() || l.State().Drops() || consumed <= l.Reported() || consumed > promptFirst && l.Received() != r.seen.Load() {
		return false
	}
	if r.prompts == 0 {
		r.prompts = min(int64(time.Since(r.earned)/idleReport), prompts)
		r.earned = time.Now()
	}
	if r.prompts == 0 {
		if !l.State().Terminated() { // else the last report is written in time
			r.lapseLocked()
		}
		return false
	}
	r.prompts--
	return true
}

// lapseLocked has the sender know that more may be consumed than was reported.
func (r *incoming[I]) lapseLocked() {
	if r.exact.Swap(false) {
		r.lapse()
		r.aimLocked()
	}
}

// waver is lapseLocked for a report that may not be written in time.
func (r *incoming[I]) waver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lapseLocked()
}
