package ledger

import (
	"fmt"
	"time"

	"github.com/weir-go/weir/streamcredit/internal/queue"
)

// MostUnbounded bounds the elements that are asked for and not consumed where a receiver without
// a bound has a sender that announces its largest credit.
const MostUnbounded = 1 << 10

// In is the ledger of the direction in which this end receives: demand, elements received, what
// is consumed, and what of that the sender was told. The number of consumed elements is kept by
// the caller, which counts without a lock, and passed to each method that needs it.
type In struct {
	Window Window
	// MaxBytes is the largest element. Zero: any.
	MaxBytes int64
	// ByteWindow bounds the bytes that are received and not reported. Zero: no bound.
	ByteWindow int64
	// Budget is shared with other receivers. Nil: none.
	Budget Budget

	state InState
	why   error // what Recv returns after the last element

	granted   int64 // everything that was asked for, less what was burned; saturates
	maxCredit int64 // the most that the sender takes at once; 0: any
	received  int64
	reported  int64 // consumed elements that the sender was told of
	reports   bool  // the sender wants to know all of them
	owed      int64 // manual demand that waits for a drain, for credit or for the budget
	dropped   int64 // owed demand that was taken back by a drain

	sizes      queue.FIFO[int64] // of the elements that are not consumed, where they matter
	counted    int64             // consumed elements whose sizes have left sizes
	bytes      int64             // sum of sizes
	unreported int64             // bytes of consumed elements that the sender was not told of
	total      int64             // bytes received
	judged     int64             // consumed elements when the window was last judged
}

// Agree takes over what the sender's Open says. reports says that it knows FEATURE_CONSUMED,
// maxCredit is the most that it takes at once, or 0.
func (l *In) Agree(reports bool, maxCredit int64) {
	l.reports, l.maxCredit = reports, maxCredit
	if maxCredit > 0 {
		l.Window.bound(maxCredit)
	}
}

// Unleash lifts all bounds, for a sender that knows nothing of them.
func (l *In) Unleash() { l.granted, l.MaxBytes, l.ByteWindow = Unbounded, 0, 0 }

// State returns the state of the direction.
func (l *In) State() InState { return l.state }

// Why returns what Recv returns after the last element, and nil while elements may arrive.
func (l *In) Why() error { return l.why }

// Received returns the elements that have arrived.
func (l *In) Received() int64 { return l.received }

// Reported returns how many elements the sender knows to be consumed.
func (l *In) Reported() int64 { return l.reported }

// Reports reports whether the sender wants to know everything that is consumed.
func (l *In) Reports() bool { return l.reports }

// Bytes returns the bytes received, where sizes matter.
func (l *In) Bytes() int64 { return l.total }

// Size returns the size of the window. Zero: manual demand.
func (l *In) Size() int64 { return l.Window.size }

// Auto reports whether the window adapts itself.
func (l *In) Auto() bool { return l.Window.auto }

// IsUnbounded reports whether demand is unbounded.
func (l *In) IsUnbounded() bool { return l.granted == Unbounded }

// Outstanding returns the elements that were asked for and have not arrived.
func (l *In) Outstanding() int64 {
	if l.granted == Unbounded {
		return Unbounded
	}
	return l.granted - l.received
}

// Sized reports whether the size of each element matters.
func (l *In) Sized() bool { return l.ByteWindow > 0 || l.MaxBytes > 0 || l.Budget != nil }

// Held returns how many elements there may be that are asked for and not consumed.
func (l *In) Held() int64 { return max(l.Window.size, l.Window.max) }

// First asks for the demand of Open.
func (l *In) First() (n int64) {
	n = l.Replenish(0, 0, func() time.Duration { return 0 })
	l.granted += n
	return n
}

// Arrive takes in n elements. It returns how the sender breaks the protocol with them, if it
// does. Weigh is to be called for each element where the state does not drop it.
func (l *In) Arrive(n int64) *Violation {
	if v := l.state.Violation(InElement); v != nil {
		return v
	}
	if l.granted != Unbounded && n > l.granted-l.received {
		return violation(CreditExceeded, fmt.Sprintf("at most %d", l.granted), "element %d", l.received+n)
	}
	l.received += n
	return nil
}

// Weigh takes in the size of an element that has arrived. consumed returns how many elements are
// consumed by now.
func (l *In) Weigh(size int64, consumed func() int64) *Violation {
	switch {
	case l.MaxBytes > 0 && size > l.MaxBytes:
		return violation(MessageTooLarge, fmt.Sprintf("at most %d", l.MaxBytes), "an element of %d bytes", size)
	case l.ByteWindow > 0 && l.bytes >= l.ByteWindow:
		l.Settle(consumed())
		if l.bytes >= l.ByteWindow {
			return violation(BytesExceeded, fmt.Sprintf("none while %d bytes are outstanding", l.ByteWindow),
				"an element, with %d", l.bytes)
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

// Settle lets go of the sizes of consumed elements.
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

// Release gives back to the budget everything that is not consumed.
func (l *In) Release() {
	if l.Budget != nil {
		l.Budget.Consumed(int64(l.sizes.Len()), l.bytes)
	}
	l.sizes.Clear()
	l.bytes = 0
}

// Owe adds demand of the application's own. Due says how much of it can be asked for now.
func (l *In) Owe(n int64) { l.owed = Saturate(l.owed, n) }

// Owed returns the demand of the application's own that was not asked for yet.
func (l *In) Owed() int64 { return l.owed }

// Bounds reports whether the sender has announced the most credit that it takes.
func (l *In) Bounds() bool { return l.maxCredit > 0 }

// Low reports whether half of the sender's largest credit is used.
func (l *In) Low() bool { return l.granted-l.received <= l.maxCredit/2 }

// WouldBeUnbounded reports whether demand for n more would be unbounded.
func (l *In) WouldBeUnbounded(n int64) bool {
	return Saturate(l.granted, Saturate(l.owed, n)) == Unbounded
}

// Due takes as much of the owed demand as can be asked for now, and returns it.
func (l *In) Due(consumed int64) int64 {
	if !l.state.Asks() || l.owed == 0 {
		return 0
	}
	want := l.owed
	if l.maxCredit > 0 {
		want = min(want, l.maxCredit-(l.granted-l.received))
		if l.owed == Unbounded { // the buffer's own bound does not hold the read loop back here
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

// Replenish returns how much to ask for now: nothing, until the outstanding credit is down to
// the low-water mark. buffered elements wait for the application. age returns the time since the
// ledger was made; it is called only for an automatic window, which adapts itself by it.
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

// Ask takes in that this end asks for n elements, reports what is consumed, and asks for a drain
// if drain is set. In a state that does not allow demand it only reports. It returns what the
// Request says, and false if that is nothing new.
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

// A Request is what a receiver has to say to its sender.
type Request struct {
	N        int64
	Consumed uint64
	Drain    bool
}

// Forget takes back the demand that was not asked for yet. The next Drained counts it as burned.
func (l *In) Forget() { l.dropped, l.owed = Saturate(l.dropped, l.owed), 0 }

// Drained takes in the answer to a drain, and returns how much was burned. forgotten is demand
// that Forget has taken back. reclaimed says that the drain was made for the budget, and not for
// the application: its demand stays. A late answer is ignored; ok is false then.
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
func (l *In) ReportDue() bool { return l.ByteWindow > 0 && l.unreported >= (l.ByteWindow+1)/2 }

// FinalDue reports whether the last report is due: everything is consumed.
func (l *In) FinalDue(consumed int64) bool {
	return l.reports && !l.state.Live() && !l.state.Drops() && consumed == l.received && consumed > l.reported
}

// LookAt returns how many elements have to be consumed until there may be something to ask for.
// It is [Unbounded] if consumption alone never makes demand due.
func (l *In) LookAt() int64 {
	if l.Window.size == 0 || l.granted == Unbounded || l.state == InDraining {
		return Unbounded
	}
	return l.granted - l.Window.size + l.Window.chunk()
}

// Terminal takes in Complete or Error. why is what Recv returns at the end.
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

// HalfClose takes in the end of the sender's half of the stream. It counts as Complete.
func (l *In) HalfClose(why error) { l.enter(InHalfClose, why) }

// Fail takes in that the stream has failed.
func (l *In) Fail(why error) { l.enter(InFail, why) }

// Cancel takes in that this end wants no more. why is what Recv returns if nothing has ended
// the direction before.
func (l *In) Cancel(why error) { l.enter(InCancel, why) }

// Close is Cancel, and makes why what Recv returns in any case.
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
