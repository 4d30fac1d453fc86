package ledger

import (
	"fmt"
	"time"

	"github.com/weir-go/weir/streamcredit/internal/queue"
)

// MostUnbounded bounds the elements that are requested and not consumed, if demand is unbounded
// and the sender announces its largest credit.
const MostUnbounded = 1 << 10

// In is the ledger of the direction in which this end receives. It counts demand, elements
// received, elements consumed, and consumed elements that were reported to the sender. The caller
// counts consumed elements without a lock, and passes their number to each method that needs it.
type In struct {
	Window Window
	// MaxBytes is the size of the largest element. Zero means no bound.
	MaxBytes int64
	// ByteWindow bounds the bytes that are received and not reported. Zero means no bound.
	ByteWindow int64
	// Budget is shared with other receivers. Nil means no budget.
	Budget Budget

	state InState
	why   error // the error of Recv after the last element

	granted   int64 // all demand that was requested and not burned; saturates
	maxCredit int64 // the sender's largest credit, or 0
	received  int64
	reported  int64 // consumed elements that were reported to the sender
	reports   bool  // the sender wants reports of all consumed elements
	owed      int64 // manual demand that waits for a drain, for credit or for the budget
	dropped   int64 // owed demand that Forget has dropped

	sizes      queue.FIFO[int64] // of elements that are not consumed, if sizes are needed
	counted    int64             // consumed elements that were removed from sizes
	bytes      int64             // sum of sizes
	unreported int64             // bytes of consumed elements that were not reported
	total      int64             // bytes received
	judged     int64             // consumed elements when the window was last judged
}

// Agree applies the sender's Open. reports is set if the sender knows FEATURE_CONSUMED. maxCredit
// is its largest credit, or 0.
func (l *In) Agree(reports bool, maxCredit int64) {
	l.reports, l.maxCredit = reports, maxCredit
	if maxCredit > 0 {
		l.Window.bound(maxCredit)
	}
}

// Unleash lifts all bounds, for a sender that does not know the protocol.
func (l *In) Unleash() { l.granted, l.MaxBytes, l.ByteWindow = Unbounded, 0, 0 }

// State returns the state of the direction.
func (l *In) State() InState { return l.state }

// Why returns the error of Recv after the last element, and nil while elements may arrive.
func (l *In) Why() error { return l.why }

// Received returns the number of elements that have arrived.
func (l *In) Received() int64 { return l.received }

// Reported returns the number of consumed elements that were reported to the sender.
func (l *In) Reported() int64 { return l.reported }

// Reports reports whether the sender wants reports of all consumed elements.
func (l *In) Reports() bool { return l.reports }

// Bytes returns the bytes received, if sizes are needed.
func (l *In) Bytes() int64 { return l.total }

// Size returns the size of the window. It is 0 with manual demand.
func (l *In) Size() int64 { return l.Window.size }

// Auto reports whether the window adapts itself.
func (l *In) Auto() bool { return l.Window.auto }

// IsUnbounded reports whether demand is unbounded.
func (l *In) IsUnbounded() bool { return l.granted == Unbounded }

// Outstanding returns the number of elements that were requested and have not arrived.
func (l *In) Outstanding() int64 {
	if l.granted == Unbounded {
		return Unbounded
	}
	return l.granted - l.received
}

// Sized reports whether the size of each element is needed.
func (l *In) Sized() bool { return l.ByteWindow > 0 || l.MaxBytes > 0 || l.Budget != nil }

// Held returns the largest number of elements that may be requested and not consumed.
func (l *In) Held() int64 { return max(l.Window.size, l.Window.max) }

// First requests and returns the demand for Open.
func (l *In) First() (n int64) {
	n = l.Replenish(0, 0, func() time.Duration { return 0 })
	l.granted += n
	return n
}

// Arrive records that n elements have arrived. It returns the sender's violation of the protocol,
// if there is one. The caller then calls Weigh for each element that the state does not drop.
func (l *In) Arrive(n int64) *Violation {
	if v := l.state.Violation(InElement); v != nil {
		return v
	}
	if l.granted != Unbounded && n > l.granted-l.received {
		return violation(CreditExceeded, fmt.Sprintf("at most %d elements", l.granted), "element %d", l.received+n)
	}
	l.received += n
	return nil
}

// Weigh records the size of an element that has arrived. consumed returns the current number of
// consumed elements.
func (l *In) Weigh(size int64, consumed func() int64) *Violation {
	switch {
	case l.MaxBytes > 0 && size > l.MaxBytes:
		return violation(MessageTooLarge, fmt.Sprintf("at most %d bytes", l.MaxBytes), "an element of %d bytes", size)
	case l.ByteWindow > 0 && l.bytes >= l.ByteWindow:
		l.Settle(consumed())
		if l.bytes >= l.ByteWindow {
			return violation(BytesExceeded, fmt.Sprintf("none while %d bytes are outstanding", l.ByteWindow),
				"an element, with %d bytes", l.bytes)
		}
	}
	l.sizes.Push(size)
	l.bytes += size
	l.total += size
	if l.Budget != nil {
		l.Budget.Arrived(size)
	}
	return nil
}

// Settle removes the sizes of consumed elements.
func (l *In) Settle(consumed int64) {
	n := min(consumed-l.counted, int64(l.sizes.Len()))
	l.counted = consumed
	if n <= 0 {
		return
	}
	var sum int64
	for range n {
		sum += l.sizes.Pop()
	}
	l.bytes -= sum
	l.unreported += sum
	if l.Budget != nil {
		l.Budget.Consumed(n, sum)
	}
}

// Release gives the budget of all elements that are not consumed back.
func (l *In) Release() {
	if l.Budget != nil {
		l.Budget.Consumed(int64(l.sizes.Len()), l.bytes)
	}
	l.sizes.Clear()
	l.bytes = 0
}

// Owe adds manual demand. Due returns how much of it can be requested now.
func (l *In) Owe(n int64) { l.owed = Saturate(l.owed, n) }

// Owed returns the manual demand that was not yet requested.
func (l *In) Owed() int64 { return l.owed }

// Bounds reports whether the sender has announced its largest credit.
func (l *In) Bounds() bool { return l.maxCredit > 0 }

// Low reports whether half of the sender's largest credit is used.
func (l *In) Low() bool { return l.granted-l.received <= l.maxCredit/2 }

// WouldBeUnbounded reports whether demand for n more would be unbounded.
func (l *In) WouldBeUnbounded(n int64) bool {
	return Saturate(l.granted, Saturate(l.owed, n)) == Unbounded
}

// Due takes as much of the owed demand as can be requested now, and returns it.
func (l *In) Due(consumed int64) int64 {
	if !l.state.Asks() || l.owed == 0 {
		return 0
	}
	want := l.owed
	if l.maxCredit > 0 {
		want = min(want, l.maxCredit-(l.granted-l.received))
		if l.owed == Unbounded { // the bound of the buffer does not hold back the read loop here
			want = min(want, MostUnbounded-(l.granted-consumed))
		}
	}
	if want <= 0 {
		return 0
	}
	more := l.take(want)
	if l.owed != Unbounded || more == Unbounded {
		l.owed -= more
	}
	return more
}

func (l *In) take(n int64) int64 {
	if l.Budget == nil {
		return n
	}
	return l.Budget.Take(n)
}

// Replenish returns how much to request now. It returns 0 until the outstanding credit is down to
// the low-water mark. buffered is the number of elements that wait for the application. age
// returns the time since the ledger was created. It is called only for an automatic window.
func (l *In) Replenish(consumed, buffered int64, age func() time.Duration) int64 {
	if !l.state.Asks() || l.granted == Unbounded {
		return 0
	}
	room := l.Window.room(l.granted - consumed)
	if room == 0 {
		return 0
	}
	if l.Window.auto {
		l.Window.judge(consumed-l.judged, int(buffered), age())
		l.judged = consumed
		room = max(0, l.Window.size-(l.granted-consumed))
	}
	return l.take(room)
}

// Ask records that this end requests n elements, reports the consumed ones, and starts a drain if
// drain is set. In a state without demand it only reports. It returns the content of the Request,
// and false if there is nothing new to say.
func (l *In) Ask(n int64, drain bool, consumed int64) (Request, bool) {
	if !l.state.Live() {
		if n, drain = 0, false; consumed == l.reported {
			return Request{}, false
		}
	}
	if n > 0 {
		l.Window.granted(uint64(l.granted))
	}
	l.granted = Saturate(l.granted, n)
	l.Settle(consumed)
	l.reported, l.unreported = l.counted, 0
	if drain {
		l.state, _ = l.state.Next(InDrain)
	}
	return Request{N: n, Consumed: uint64(l.reported), Drain: drain}, true
}

// A Request is a message of a receiver to its sender.
type Request struct {
	N        int64
	Consumed uint64
	Drain    bool
}

// Forget drops the demand that was not yet requested. The next Drained counts it as burned.
func (l *In) Forget() { l.dropped, l.owed = Saturate(l.dropped, l.owed), 0 }

// Drained handles the answer to a drain. It returns how much demand was burned, with the demand
// that Forget has dropped. reclaimed means that the drain was made for the budget. The
// application's demand then stays owed. A late answer is ignored, and ok is false.
func (l *In) Drained(sent uint64, reclaimed bool) (burned int64, ok bool, v *Violation) {
	if v = l.state.Violation(InDrained); v != nil || l.state != InDraining {
		return 0, false, v
	}
	if sent != uint64(l.received) {
		return 0, false, violation(CountMismatch, fmt.Sprint(l.received), "Drained.sent %d", sent)
	}
	burned = l.granted - l.received
	if l.Budget != nil {
		l.Budget.Burned(burned)
	}
	l.granted = l.received
	l.state, _ = l.state.Next(InDrained)
	if reclaimed && l.Window.size == 0 {
		l.owed = Saturate(l.owed, burned)
	}
	all := Saturate(burned, l.dropped)
	l.dropped = 0
	return all, true, nil
}

// ReportDue reports whether half of the byte window is consumed and not reported.
func (l *In) ReportDue() bool {
	return l.ByteWindow > 0 && l.unreported >= l.ByteWindow-l.ByteWindow/2 // the larger half
}

// FinalDue reports whether the last report is due, since everything is consumed.
func (l *In) FinalDue(consumed int64) bool {
	return l.reports && !l.state.Live() && !l.state.Drops() && consumed == l.received && consumed > l.reported
}

// LookAt returns the number of consumed elements at which there may be something to request. It
// is [Unbounded] if consumption alone never makes demand due.
func (l *In) LookAt() int64 {
	if l.Window.size == 0 || l.granted == Unbounded || l.state == InDraining {
		return Unbounded
	}
	return l.granted - l.Window.size + l.Window.chunk()
}

// Terminal handles Complete or Error. why is the error of Recv at the end.
func (l *In) Terminal(why error, total uint64) *Violation {
	if v := l.state.Violation(InTerminal); v != nil {
		return v
	}
	if total != uint64(l.received) {
		return violation(CountMismatch, fmt.Sprint(l.received), "total %d", total)
	}
	l.enter(InTerminal, why)
	return nil
}

// HalfClose handles the end of the sender's half of the stream. It counts as Complete.
func (l *In) HalfClose(why error) { l.enter(InHalfClose, why) }

// Fail records that the stream has failed.
func (l *In) Fail(why error) { l.enter(InFail, why) }

// Cancel records that this end wants no more elements. why is the error of Recv unless the
// direction has ended before.
func (l *In) Cancel(why error) { l.enter(InCancel, why) }

// Close is Cancel, and makes why the error of Recv in any case.
func (l *In) Close(why error) {
	l.enter(InCancel, why)
	l.why = why
}

// enter goes to the state after e. The first reason is kept.
func (l *In) enter(e InEvent, why error) {
	live := l.state.Live()
	l.state, _ = l.state.Next(e)
	if live && !l.state.Live() {
		l.why = why
		if l.Budget != nil {
			l.Budget.Close()
		}
	}
}
