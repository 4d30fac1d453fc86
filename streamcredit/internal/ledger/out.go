package ledger

import "fmt"

// MostSizes bounds the number of sizes that a sender remembers for the byte window of a receiver
// that does not report consumed elements. Beyond it the sender waits.
const MostSizes = 1 << 20

// Out is the ledger of the direction in which this end sends. It counts demand, elements sent,
// and elements that the receiver has reported as consumed.
type Out struct {
	// MaxCredit bounds the credit at any time. Zero means no bound. Demand beyond it is kept and
	// becomes credit later.
	MaxCredit int64
	// Left is the reason why no element can be sent after the receiver's half-close.
	Left error

	state OutState
	why   error // first reason why no element can be sent
	lost  error // first reason why the receiver says nothing more

	credit  int64  // elements that may be sent now; set by refill
	granted int64  // all demand that was requested and not burned; saturates
	sent    uint64 // elements
	asked   bool   // there was demand
	writing bool   // the last element taken is neither Wrote nor Restored
	total   int64  // bytes sent

	consumed  uint64 // elements that the receiver has reported as consumed
	reporting bool   // the receiver promised to report all of them
	unsure    bool   // the receiver said that its reports are incomplete

	sized      bool    // the size of each element is needed
	maxMessage int64   // the largest element that the receiver takes, or 0
	byteWindow int64   // 0 without a byte window
	bytes      int64   // sum of sizes
	sizes      []int64 // sizes of the elements beyond consumed, if there is a byte window
}

// Agree applies the bounds in the receiver's Open. reporting is set if the receiver knows
// FEATURE_CONSUMED.
func (o *Out) Agree(maxMessage, byteWindow int64, reporting bool) {
	o.maxMessage, o.byteWindow, o.reporting = maxMessage, byteWindow, reporting
	o.sized = o.sized || maxMessage > 0 || byteWindow > 0
}

// Weigh makes Take ask for the size of each element.
func (o *Out) Weigh() { o.sized = true }

// State returns the state of the direction.
func (o *Out) State() OutState { return o.state }

// Why returns the reason if no element can be sent any more, and nil otherwise.
func (o *Out) Why() error { return o.why }

// Lost returns why the receiver says nothing more. It is nil if the receiver may, or has
// half-closed.
func (o *Out) Lost() error { return o.lost }

// Free reports whether an element may be sent now.
func (o *Out) Free() bool {
	return o.credit > 0 && o.state.Sends() &&
		(o.byteWindow <= 0 || o.bytes < o.byteWindow && len(o.sizes) < MostSizes)
}

// Credit returns how many elements may be sent, apart from the byte window.
func (o *Out) Credit() int64 { return o.credit }

// Asked reports whether there was any demand.
func (o *Out) Asked() bool { return o.asked }

// Granted returns all demand that was requested and not burned. It saturates.
func (o *Out) Granted() int64 { return o.granted }

// Sent returns the number of elements sent.
func (o *Out) Sent() uint64 { return o.sent }

// Bytes returns the bytes sent, as far as sizes are needed.
func (o *Out) Bytes() int64 { return o.total }

// Consumed returns how many elements the receiver has reported as consumed.
func (o *Out) Consumed() uint64 { return o.consumed }

// Reporting reports whether the receiver promised to report everything that it consumes.
func (o *Out) Reporting() bool { return o.reporting }

// Doubt records that the receiver may have consumed more than it has reported.
func (o *Out) Doubt() { o.unsure = true }

// Unconsumed returns how many elements the receiver has left unconsumed, or 0 if that is not
// known.
func (o *Out) Unconsumed() uint64 {
	if !o.reporting || o.unsure {
		return 0
	}
	return o.sent - o.consumed
}

// Settled reports whether the receiver has consumed n elements, or can no longer report them.
func (o *Out) Settled(n uint64) bool { return o.consumed >= n || !o.state.Hears() }

// Request handles demand for n elements. If consumed is not 0, it also handles the report that
// the first consumed elements are consumed. It reports whether the demand exceeds MaxCredit.
func (o *Out) Request(n int64, consumed uint64) (clamped bool, v *Violation) {
	if _, ok := o.state.Next(OutRequest); !ok {
		return false, violation(AfterTerminal, "nothing after the half-close", "a Request")
	}
	if consumed != 0 {
		if consumed < o.consumed || consumed > o.sent {
			return false, violation(InvalidConsumed, fmt.Sprintf("one from %d to the %d sent", o.consumed, o.sent), "consumed %d", consumed)
		}
		o.consume(consumed)
	}
	if n == 0 || !o.state.Sends() {
		return false, nil
	}
	o.granted, o.asked = Saturate(o.granted, n), true
	return o.refill(), nil
}

// refill turns unused demand into credit, up to MaxCredit. It reports whether there is more
// demand.
func (o *Out) refill() (clamped bool) {
	o.credit = Unbounded
	if o.granted != Unbounded {
		o.credit = o.granted - int64(o.sent)
	}
	clamped = o.MaxCredit > 0 && o.credit > o.MaxCredit
	if clamped {
		o.credit = o.MaxCredit
	}
	return clamped
}

func (o *Out) consume(consumed uint64) {
	if o.byteWindow > 0 {
		n := int(consumed - o.consumed)
		for _, size := range o.sizes[:n] {
			o.bytes -= size
		}
		o.sizes = o.sizes[n:]
	}
	o.consumed = consumed
}

// A Verdict is the result of Take.
type Verdict uint8

// The verdicts of Take.
const (
	Taken    Verdict = iota // the element may be written
	NoCredit                // there is no credit, or the byte window is full
	TooLarge                // the receiver does not take so large an element
	Ended                   // no element may be sent any more, as Why explains
)

// Take uses one credit for an element. It calls sizeOf if the size is needed, and returns the
// size. Call Wrote or Restore before the next Take.
func (o *Out) Take(sizeOf func() int) (size int64, v Verdict) {
	switch {
	case !o.state.Sends():
		return 0, Ended
	case !o.Free():
		return 0, NoCredit
	}
	if o.sized {
		if size = int64(sizeOf()); o.maxMessage > 0 && size > o.maxMessage {
			return size, TooLarge
		}
	}
	o.sent, o.writing = o.sent+1, true
	o.total += size
	o.refill()
	if o.byteWindow > 0 {
		o.sizes = append(o.sizes, size)
		o.bytes += size
	}
	return size, Taken
}

// Wrote records that the element of the last Take is written.
func (o *Out) Wrote() {
	o.writing = false
	if o.state == OutLastCredit {
		o.spent()
	}
}

// MaxMessage returns the size of the largest element that the receiver takes, or 0 for no bound.
func (o *Out) MaxMessage() int64 { return o.maxMessage }

// Restore undoes the last Take. The element was not written, so a report that the receiver has
// consumed it cannot be true.
func (o *Out) Restore(size int64) {
	o.sent, o.writing = o.sent-1, false
	o.total -= size
	o.refill()
	o.consumed = min(o.consumed, o.sent)
	if len(o.sizes) > 0 {
		o.sizes = o.sizes[:len(o.sizes)-1]
		o.bytes -= size
	}
}

// Burn gives back all unused demand, and returns the fields of Drained.
func (o *Out) Burn() (sent uint64, burned int64) {
	burned = o.granted - int64(o.sent)
	o.granted = int64(o.sent)
	o.refill()
	o.spent()
	return o.sent, burned
}

// spent enters OutExhausted if no demand can follow and no element may be sent. An element that is
// being written may still be restored, and its credit with it, so it is too early then.
func (o *Out) spent() {
	if !o.writing && !o.Free() {
		o.enter(OutSpent, o.Left)
	}
}

// enter goes to the state after e. why is the reason if no element can be sent from then on.
func (o *Out) enter(e OutEvent, why error) (ok bool) {
	sent := o.state.Sends()
	o.state, ok = o.state.Next(e)
	if sent && !o.state.Sends() {
		o.why = why
	}
	return ok
}

// Close records that this end writes its terminal. It returns the total for the terminal, and
// false if no terminal may be written.
func (o *Out) Close(why error) (sent uint64, ok bool) {
	ok = o.enter(OutTerminal, why)
	return o.sent, ok
}

// HalfClose records that the receiver's half of the stream has ended.
func (o *Out) HalfClose() {
	o.enter(OutHalfClose, o.Left)
	o.spent()
}

// End records OutCancel, OutReturn or OutFail. why is the reason. The first reason is kept.
func (o *Out) End(e OutEvent, why error) {
	ended := o.state.Ended()
	o.enter(e, why)
	if !ended && o.state.Ended() {
		o.lost = why
	}
}
