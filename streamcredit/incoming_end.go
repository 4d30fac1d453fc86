package streamcredit

import (
	"io"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// state returns the state of the direction.
func (r *incoming[I]) state() ledger.InState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.State()
}

// received returns the number of elements that have arrived.
func (r *incoming[I]) received() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return uint64(r.ledger.Received())
}

// terminal handles Complete or Error. err is io.EOF for Complete.
func (r *incoming[I]) terminal(err error, total uint64) *ProtocolError {
	return r.ends(func(l *ledger.In) *ledger.Violation { return l.Terminal(err, total) }, true)
}

// halfClosed handles the end of the sender's half of the stream, which counts as Complete.
func (r *incoming[I]) halfClosed() {
	_ = r.ends(func(l *ledger.In) *ledger.Violation { l.HalfClose(io.EOF); return nil }, true)
}

// fail makes Recv return err after the buffered elements. The first reason wins.
func (r *incoming[I]) fail(err error) {
	_ = r.ends(func(l *ledger.In) *ledger.Violation { l.Fail(err); return nil }, false)
}

// ends applies an end to the ledger. If report is set and everything is consumed, it leaves the
// last report in pending.
func (r *incoming[I]) ends(end func(*ledger.In) *ledger.Violation, report bool) *ProtocolError {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := r.ledger.State().Live()
	if v := end(&r.ledger); v != nil {
		return broken(v)
	}
	r.endedLocked(live)
	if report && r.ledger.FinalDue(r.consumed.Load()) {
		r.askLocked(0, false)
	}
	return nil
}

// endedLocked finishes the direction if the ledger has just ended. live says whether it was live
// before.
func (r *incoming[I]) endedLocked(live bool) {
	if !live || r.ledger.State().Live() {
		return
	}
	close(r.done)
	if err := r.ledger.Why(); r.atOnce && err != io.EOF && err != ErrGoingAway { //nolint:errorlint // the bare errors are proper ends
		r.withheld.Store(true)
	}
	if r.idle != nil {
		r.idle.Stop()
	}
	r.aimLocked()
}

// cancel drops all elements, now and later. It reports whether the sender must be told, because
// it has not ended or waits to hear that everything is consumed.
func (r *incoming[I]) cancel() (tell bool) {
	r.takeMu.Lock()
	defer r.takeMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.ledger.State()
	tell = !state.Drops() && (!state.Terminated() || r.ledger.Reports() && r.consumed.Load() < r.ledger.Received())
	r.ledger.Close(ErrClosed)
	r.endedLocked(state.Live())
	r.dropLocked()
	r.ledger.Release() // from now on the elements belong to the application
	return tell
}

// abandon releases the budget of elements that are not consumed. If drop is set and the sender
// had not ended, it drops them as well, and Recv then returns err. An earlier reason wins over
// err. err is needed because the failure of the session may not have reached this direction yet.
func (r *incoming[I]) abandon(drop bool, err error) {
	r.takeMu.Lock()
	defer r.takeMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if state := r.ledger.State(); drop && !state.Terminated() {
		r.ledger.Cancel(err)
		r.endedLocked(state.Live())
		r.dropLocked()
	}
	r.ledger.Release()
}

// dropLocked drops the buffered elements. The caller holds r.takeMu, too.
func (r *incoming[I]) dropLocked() {
	r.withheld.Store(true)
	r.consumed.Add(int64(r.taken.Len() + r.buffer.Len()))
	r.taken.Clear()
	r.buffer.Clear()
	r.held = 0
	r.seen.Store(r.ledger.Received())
	r.ledger.Settle(r.consumed.Load())
}

// why returns the error of Recv at the end, and nil before it.
func (r *incoming[I]) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.Why()
}

// complete reports whether the sender has ended and the application has seen everything.
func (r *incoming[I]) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.State() == ledger.InEnded && r.ledger.Received() == r.seen.Load()
}

// spent reports whether this direction has nothing more to write.
func (r *incoming[I]) spent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	state, received := r.ledger.State(), r.ledger.Received()
	return state.Drops() ||
		!state.Live() && received == r.seen.Load() && (!r.ledger.Reports() || received == r.ledger.Reported())
}
