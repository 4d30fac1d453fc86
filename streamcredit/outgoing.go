package streamcredit

import (
	"context"
	"errors"
	"sync"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// unbounded is credit that elements do not use up.
const unbounded = ledger.Unbounded

func saturate(a, b int64) int64 { return ledger.Saturate(a, b) }

// leftReason is the reason in the error of Send after the receiver's half-close.
const leftReason = "it has half-closed the stream, and its credit is used up"

// outgoing is the direction in which this end sends. It has the ledger, a lock, and the
// goroutines that wait for a change. It does no I/O.
type outgoing struct {
	mu sync.Mutex // guards the fields below; held for a few instructions only

	ledger ledger.Out

	changed chan struct{} // closed at the next change; nil if no goroutine waits
	wakeAt  uint64        // number of sent elements that counts as a change, or 0
	waiting int           // Sends that wait
	since   time.Time     // when the first of them began
	starved time.Duration // total time in which a Send waited, without a wait in progress
	done    chan struct{} // closed when no more elements can be sent
}

func newOutgoing(c *config) *outgoing {
	o := &outgoing{done: make(chan struct{})}
	o.ledger.MaxCredit, o.ledger.Left = c.maxCredit, &canceled{reason: leftReason}
	if c.meter != nil {
		o.ledger.Weigh()
	}
	return o
}

// agree applies the bounds in the receiver's Open.
func (o *outgoing) agree(peer *creditpb.Open, reporting bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger.Agree(peer.GetMaxMessageBytes(), peer.GetMaxBufferedBytes(), reporting)
}

// weigh makes take ask for the size of each element.
func (o *outgoing) weigh() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger.Weigh()
}

// state returns the state of the direction.
func (o *outgoing) state() ledger.OutState {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ledger.State()
}

// demand handles a Request. It reports whether the demand exceeds the largest credit.
func (o *outgoing) demand(r *creditpb.Request) (clamped bool, err *ProtocolError) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clamped, v := o.ledger.Request(r.GetN(), r.GetConsumed())
	if v != nil {
		return false, broken(v)
	}
	o.wakeLocked()
	return clamped, nil
}

// take uses one credit for an element, and returns its size if that is needed. Without credit it
// returns no error and false. The caller holds the write lock, and calls wrote or restore next.
func (o *outgoing) take(sizeOf func() int) (size int64, ok bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size, verdict := o.ledger.Take(sizeOf)
	switch verdict {
	case ledger.NoCredit:
		return 0, false, nil
	case ledger.TooLarge:
		return 0, false, &tooLarge{size: size, most: o.ledger.MaxMessage()}
	case ledger.Ended:
		return 0, false, o.ledger.Why()
	case ledger.Taken:
	}
	return size, true, nil
}

// wrote records that the element of the last take is written.
func (o *outgoing) wrote() {
	o.mu.Lock()
	defer o.mu.Unlock()
	sending := o.ledger.State().Sends()
	o.ledger.Wrote()
	if sending && !o.ledger.State().Sends() { // that was the last one
		o.endedLocked(true)
	} else if o.wakeAt > 0 && o.ledger.Sent() >= o.wakeAt {
		o.wakeLocked()
	}
}

// restore undoes the last take.
func (o *outgoing) restore(size int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger.Restore(size)
	o.wakeLocked()
}

// burn gives back all unused credit, and returns the Drained for it. The caller holds the write
// lock.
func (o *outgoing) burn() *creditpb.Drained {
	o.mu.Lock()
	defer o.mu.Unlock()
	sending := o.ledger.State().Sends()
	sent, burned := o.ledger.Burn()
	o.endedLocked(sending)
	return &creditpb.Drained{Sent: sent, Burned: burned}
}

// end records how the direction ends for its receiver. e is OutCancel, OutReturn or OutFail.
func (o *outgoing) end(e ledger.OutEvent, why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sending := o.ledger.State().Sends()
	o.ledger.End(e, why)
	o.endedLocked(sending)
}

// halfClosed records that the receiver has half-closed its stream.
func (o *outgoing) halfClosed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	sending := o.ledger.State().Sends()
	o.ledger.HalfClose()
	o.endedLocked(sending)
}

// close records that the terminal is written now. It returns the total for it, and false if no
// terminal may be written. The caller holds the write lock.
func (o *outgoing) close() (sent uint64, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sending := o.ledger.State().Sends()
	sent, first = o.ledger.Close(ErrClosed)
	o.endedLocked(sending)
	return sent, first
}

// endedLocked wakes all waiters after a change of state. sending says whether elements could be
// sent before.
func (o *outgoing) endedLocked(sending bool) {
	if sending && !o.ledger.State().Sends() {
		close(o.done)
	}
	o.wakeLocked()
}

func (o *outgoing) stats() SenderStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.ledger
	s := SenderStats{
		Sent: l.Sent(), SentBytes: uint64(l.Bytes()), Consumed: l.Consumed(), Credit: l.Credit(), Waiting: o.waiting, Starved: o.starved,
	}
	if o.waiting > 0 {
		s.Starved += time.Since(o.since)
	}
	if !l.State().Sends() {
		s.Credit = 0
	}
	return s
}

// allowed returns how many elements may be sent now.
func (o *outgoing) allowed() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ledger.Free() {
		return 0
	}
	return o.ledger.Credit()
}

// why returns the reason if no element can be sent any more, and nil otherwise.
func (o *outgoing) why() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ledger.Why()
}

// failure returns why the direction ended, or nil if it was closed or the call ended with OK.
func (o *outgoing) failure() error {
	if err := o.why(); err != errPeace && !errors.Is(err, ErrClosed) { //nolint:errorlint // this very one
		return err
	}
	return nil
}

// asked reports whether there was any demand, or there can be none any more.
func (o *outgoing) asked() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ledger.Asked() || !o.ledger.State().Sends()
}

// sent returns the number of elements sent.
func (o *outgoing) sent() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ledger.Sent()
}

// doubt records that the receiver may have consumed more than it has reported.
func (o *outgoing) doubt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger.Doubt()
}

// awaitAllConsumed waits until the receiver has consumed all sent elements, if it reports them.
func (o *outgoing) awaitAllConsumed(ctx context.Context) error {
	err := o.wait(ctx, func() bool { return !o.ledger.Reporting() || o.ledger.Settled(o.ledger.Sent()) })
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.ledger
	switch {
	case !l.Reporting() || l.Consumed() >= l.Sent():
		return nil
	case l.State() == ledger.OutReturned, !l.State().Hears() && !l.State().Ended():
		return o.unconsumedLocked()
	case l.Lost() != nil:
		return l.Lost()
	}
	return err
}

// unconsumed returns an error if the receiver has left elements unconsumed.
func (o *outgoing) unconsumed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unconsumedLocked()
}

func (o *outgoing) unconsumedLocked() error {
	if o.ledger.Unconsumed() == 0 {
		return nil
	}
	return &UnconsumedError{Sent: o.ledger.Sent(), Consumed: o.ledger.Consumed()}
}

// awaitConsumed waits until the receiver has consumed n elements.
func (o *outgoing) awaitConsumed(ctx context.Context, n uint64) error {
	short := func() bool { return n > o.ledger.Sent() && !o.ledger.State().Sends() }
	err := o.wait(ctx, func() bool { return o.ledger.Settled(n) || short() })
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.ledger
	switch {
	case l.Consumed() >= n:
		return nil
	case l.Lost() != nil:
		return l.Lost()
	case !l.State().Hears():
		return l.Left
	case short(): // there will be no n elements
		return l.Why()
	}
	return err
}

// beat returns a Heartbeat with the state of the ledger.
func (o *outgoing) beat() *creditpb.Heartbeat {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &creditpb.Heartbeat{Sent: o.ledger.Sent(), Credit: o.ledger.Credit()}
}
