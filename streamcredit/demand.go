package streamcredit

import (
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// demand adds demand of the application. Unbounded demand needs mayBeUnbounded.
func (r *incoming[I]) demand(n int64, mayBeUnbounded bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !mayBeUnbounded && r.ledger.WouldBeUnbounded(n) {
		return invalid("Request: got unbounded demand on a stream that also sends, want it bounded")
	}
	r.ledger.Owe(n)
	if more := r.ledger.Due(r.consumed.Load()); more > 0 || !r.ledger.State().Live() {
		r.askLocked(more, false)
	}
	r.aimLocked()
	return nil
}

// askLocked leaves a Request in pending, with a report of the consumed elements.
func (r *incoming[I]) askLocked(n int64, drain bool) {
	request, news := r.ledger.Ask(n, drain, r.consumed.Load())
	if !news {
		return
	}
	if request.Drain {
		signal(r.space) // a drain gives the buffer more room
	}
	r.pending.ask(request.N, request.Consumed, request.Drain)
	r.aimLocked()
}

// moreLocked takes as much demand as can be asked for now, and returns it.
func (r *incoming[I]) moreLocked() int64 {
	consumed := r.consumed.Load()
	due := r.ledger.Due(consumed)
	return saturate(due, r.ledger.Replenish(consumed, r.ledger.Received()-r.seen.Load(), r.age))
}

// age returns how long the direction has existed.
func (r *incoming[I]) age() time.Duration { return time.Since(r.born) }

// aimLocked sets the number of consumed elements at which there may be something to request or to
// report.
func (r *incoming[I]) aimLocked() {
	l := &r.ledger
	switch {
	case l.Sized() || !l.State().Live() || r.explicit || r.waiting > 0 && l.Reports() || r.exact.Load() || l.Owed() > 0 && l.Bounds():
		r.look.Store(0)
	default:
		r.look.Store(l.LookAt())
	}
}

// did records that the application has consumed n more elements, and requests more if that is
// due. It reports whether the direction has ended.
func (r *incoming[I]) did(n int) (over bool) {
	if r.consumed.Add(int64(n)) < r.look.Load() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.ledger
	l.Settle(r.consumed.Load())
	switch more := r.moreLocked(); {
	case more > 0:
		r.askLocked(more, false)
	case l.ReportDue(), l.FinalDue(r.consumed.Load()), r.promptLocked():
		r.askLocked(0, false)
	case l.Reports() && (r.explicit || l.Received() == r.seen.Load()) && r.consumed.Load() > l.Reported():
		r.armLocked() // the application need not call Recv after this
	}
	return !l.State().Live()
}

// claim counts n elements as consumed if the application holds so many. It returns how many it
// holds.
func (r *incoming[I]) claim(n int64) (had int64, ok bool) {
	for {
		consumed := r.consumed.Load()
		had = r.seen.Load() - consumed
		if n < 1 || n > had {
			return had, false
		}
		if r.consumed.CompareAndSwap(consumed, consumed+n) {
			return had, true
		}
	}
}

// retry returns a function for the budget. It requests more when the budget may have room.
func (r *incoming[I]) retry(write func()) func() {
	return func() {
		r.mu.Lock()
		r.account.Want(false) // unless it gets too little again
		more := r.moreLocked()
		if more > 0 {
			r.askLocked(more, false)
		}
		r.mu.Unlock()
		if more > 0 {
			write()
		}
	}
}

// reclaim returns a function for the budget. It gives back unused credit.
func (r *incoming[I]) reclaim(write func()) func() {
	return func() {
		r.mu.Lock()
		idle := r.drains && r.ledger.State().Asks()
		if idle {
			r.askLocked(0, true)
		}
		r.mu.Unlock()
		if idle {
			write()
		}
	}
}

// drain starts a drain. The channel receives how much credit was given back.
func (r *incoming[I]) drain() (<-chan int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch state := r.ledger.State(); {
	case !state.Live():
		return nil, r.ledger.Why()
	case !r.drains:
		return nil, invalid("Drain: got a sender that does not know FEATURE_DRAIN, want one that does")
	case state != ledger.InDraining:
		r.askLocked(0, true)
	}
	r.ledger.Forget()
	r.account.Want(false)
	answer := make(chan int64, 1)
	r.answer = append(r.answer, answer)
	return answer, nil
}

// drained handles the answer to a drain.
func (r *incoming[I]) drained(d *creditpb.Drained) *ProtocolError {
	r.mu.Lock()
	defer r.mu.Unlock()
	reclaimed := len(r.answer) == 0 // for the budget
	burned, ok, v := r.ledger.Drained(d.GetSent(), reclaimed)
	if v != nil || !ok {
		return broken(v)
	}
	for _, a := range r.answer {
		a <- burned
	}
	r.answer = nil
	r.aimLocked()
	if reclaimed {
		r.account.Want(true) // after the other receivers
	} else if more := r.moreLocked(); more > 0 {
		r.askLocked(more, false)
	}
	return nil
}
