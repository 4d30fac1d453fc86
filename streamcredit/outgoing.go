package streamcredit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

const (
	// unbounded is the credit that no element lowers.
	unbounded = math.MaxInt64
	// mostSizes is of how many elements that the receiver does not report as consumed a
	// sender remembers the sizes. Then it waits, as when the receiver's byte window is full.
	mostSizes = 1 << 20
)

// outgoing is the ledger of the direction in which this side sends: what was
// asked for and what was sent. It does no I/O.
type outgoing struct {
	maxCredit int64 // the most credit that is kept; from the options

	mu sync.Mutex // guards what follows; held for a few instructions only

	credit  int64  // what may be sent now: see refillLocked
	granted int64  // all that was asked for, and not burned; saturates
	sent    uint64 // all that was ever sent
	wanted  bool   // there was demand

	consumed  uint64 // what the receiver has reported
	reporting bool   // it will report all of it
	unsure    bool   // it has said that it could not; see doubtTrailer

	sized      bool    // the size of each element is needed
	maxMessage int64   // the largest element that the receiver takes; 0: any
	byteWindow int64   // 0: none
	bytes      int64   // the sum of sizes
	sizes      []int64 // of the elements beyond consumed, where there is a byte window; at most mostSizes

	total int64 // bytes sent

	over    error // why no element can be sent any more; the first reason
	lost    error // why the receiver hears nothing more, or wants to
	sterile bool  // no demand can follow: the client has half-closed
	mute    bool  // nothing more may be written in this direction, not even a terminal

	changed chan struct{} // closed at the next change that somebody waits for; nil: nobody does
	wakeAt  uint64        // the value of sent that is such a change, too; 0: none is
	waiting int           // Sends that wait
	since   time.Time     // when the first of them began
	starved time.Duration // the sum of these times, over
	done    chan struct{} // closed with over
}

func newOutgoing(c *config) *outgoing {
	return &outgoing{maxCredit: c.maxCredit, sized: c.meter != nil, done: make(chan struct{})}
}

// agree takes over what the receiver's Open says.
func (o *outgoing) agree(peer *creditpb.Open, reporting bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.maxMessage, o.byteWindow, o.reporting = peer.GetMaxMessageBytes(), peer.GetMaxBufferedBytes(), reporting
	o.sized = o.sized || o.maxMessage > 0 || o.byteWindow > 0
}

// weigh has take ask for the size of each element.
func (o *outgoing) weigh() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sized = true
}

// freeLocked reports whether an element could be sent now.
func (o *outgoing) freeLocked() bool {
	return o.credit > 0 && (o.byteWindow <= 0 || o.bytes < o.byteWindow && len(o.sizes) < mostSizes)
}

// wakeLocked wakes all goroutines that wait for a change. Every method that changes a field
// of a condition in await, wait or beyond calls it. take is the exception: it makes none of
// the conditions true but that of beyond, which sets wakeAt.
func (o *outgoing) wakeLocked() {
	o.wakeAt = 0
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// changesLocked returns a channel that the next change closes.
func (o *outgoing) changesLocked() <-chan struct{} {
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.changed
}

// demand adds what a Request asks for. A clamped demand is reported.
func (o *outgoing) demand(r *creditpb.Request) (clamped bool, err *ProtocolError) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := r.GetConsumed(); c != 0 {
		if c < o.consumed || c > o.sent {
			return false, violation(InvalidConsumed, fmt.Sprintf("one from %d to %d, what was sent", o.consumed, o.sent), "consumed %d", c)
		}
		o.consumeLocked(c)
	}
	if r.GetN() == 0 || o.over != nil {
		o.wakeLocked()
		return false, nil
	}
	o.granted, o.wanted = saturate(o.granted, r.GetN()), true
	clamped = o.refillLocked()
	o.wakeLocked()
	return clamped, nil
}

// refillLocked makes credit of what was asked for and not sent, up to its bound. It reports
// whether there is more than that: what is beyond is there once there is room.
func (o *outgoing) refillLocked() (clamped bool) {
	o.credit = unbounded
	if o.granted != unbounded {
		o.credit = o.granted - int64(o.sent)
	}
	clamped = o.maxCredit > 0 && o.credit > o.maxCredit
	if clamped {
		o.credit = o.maxCredit
	}
	return clamped
}

func saturate(a, b int64) int64 {
	if b > unbounded-a {
		return unbounded
	}
	return a + b
}

func (o *outgoing) consumeLocked(consumed uint64) {
	if o.byteWindow > 0 {
		n := int(consumed - o.consumed)
		for _, size := range o.sizes[:n] {
			o.bytes -= size
		}
		o.sizes = o.sizes[n:]
	}
	o.consumed = consumed
}

// take uses one credit for an element, whose size it asks for if it needs it. Without
// credit it returns no error and false.
func (o *outgoing) take(sizeOf func() int) (size int64, ok bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.over != nil:
		return 0, false, o.over
	case !o.freeLocked():
		return 0, false, nil
	}
	if o.sized {
		if size = int64(sizeOf()); o.maxMessage > 0 && size > o.maxMessage {
			return 0, false, &tooLarge{size: size, most: o.maxMessage}
		}
	}
	o.sent++
	o.total += size
	o.refillLocked()
	if o.byteWindow > 0 {
		o.sizes = append(o.sizes, size)
		o.bytes += size
	}
	if o.wakeAt > 0 && o.sent >= o.wakeAt {
		o.wakeLocked()
	}
	if o.sterile && !o.freeLocked() {
		o.endLocked(&canceled{reason: leftReason})
	}
	return size, true, nil
}

// restore undoes the last take: the element was not written, whatever the receiver says to
// have done with it.
func (o *outgoing) restore(size int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent--
	o.total -= size
	o.refillLocked()
	o.consumed = min(o.consumed, o.sent)
	if len(o.sizes) > 0 {
		o.sizes = o.sizes[:len(o.sizes)-1]
		o.bytes -= size
	}
	o.wakeLocked()
}

// burn gives all credit back, as Drained says. The session's write lock is held.
func (o *outgoing) burn() *creditpb.Drained {
	o.mu.Lock()
	defer o.mu.Unlock()
	burned := o.granted - int64(o.sent)
	o.granted = int64(o.sent)
	o.refillLocked()
	if o.sterile {
		o.endLocked(&canceled{reason: leftReason})
	}
	return &creditpb.Drained{Sent: o.sent, Burned: burned}
}

// end has every Send from now on return err, and those that wait, and nothing more
// be written. The first wins.
func (o *outgoing) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mute = true
	if o.lost == nil {
		o.lost = err
	}
	o.endLocked(err)
}

func (o *outgoing) endLocked(err error) {
	if o.over == nil {
		o.over = err
		close(o.done)
	}
	o.wakeLocked()
}

// leftReason is why Send ends after a half-close.
const leftReason = "it has left, and all that it asked for was sent"

// desert notes that no demand can follow, and no report of what is consumed.
func (o *outgoing) desert() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sterile = true
	if !o.freeLocked() {
		o.endLocked(&canceled{reason: leftReason})
	}
	o.wakeLocked()
}

// finish marks the direction as closed by its sender and returns what was sent.
// It returns false if a terminal was written before or nobody wants it.
func (o *outgoing) finish() (sent uint64, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first = !o.mute
	o.mute = true
	o.endLocked(ErrClosed)
	return o.sent, first
}

// await waits until an element could be sent. stall, if positive, bounds the wait:
// then it returns a ProtocolError. It parks at once: to let others run first and look
// again keeps a processor from the goroutines that bring the demand.
func (o *outgoing) await(ctx context.Context, stall time.Duration) error {
	var stalled <-chan time.Time
	if stall > 0 {
		timer := time.NewTimer(stall)
		defer timer.Stop()
		stalled = timer.C
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.over == nil && !o.freeLocked() {
		if err := o.parkLocked(ctx, stalled); err != nil {
			return err
		}
	}
	return o.over
}

// parkLocked waits for the next change. It measures how long.
func (o *outgoing) parkLocked(ctx context.Context, stalled <-chan time.Time) error {
	if o.waiting++; o.waiting == 1 {
		o.since = time.Now()
	}
	changed := o.changesLocked()
	o.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = ctx.Err()
	case <-stalled:
		err = violation(CreditStarved, "credit in time", "none")
	}
	o.mu.Lock()
	if o.waiting--; o.waiting == 0 {
		o.starved += time.Since(o.since)
	}
	return err
}

// wait waits until what holds, which is called with o.mu held.
func (o *outgoing) wait(ctx context.Context, what func() bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !what() {
		changed := o.changesLocked()
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		o.mu.Lock()
		if err := ctx.Err(); err != nil && !what() {
			return err
		}
	}
	return nil
}

// beyond waits until the receiver wants more than the first asked elements, and returns how
// many more. Bounded demand is passed on at once. Where demand is unbounded, or exceeds the
// largest credit, beyond stays that credit ahead of sent, or pipeAhead, in steps of half of it.
func (o *outgoing) beyond(ctx context.Context, asked int64) (more int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if o.over != nil {
			return 0, o.over
		}
		more, wakeAt := o.beyondLocked(asked)
		if more > 0 {
			return more, nil
		}
		changed := o.changesLocked()
		o.wakeAt = wakeAt
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		o.mu.Lock()
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// beyondLocked returns how much the receiver wants beyond asked, or else the value of sent at
// which that may change without a Request.
func (o *outgoing) beyondLocked(asked int64) (more int64, wakeAt uint64) {
	ahead := o.credit
	switch {
	case ahead == unbounded:
		ahead = pipeAhead
	case o.granted-int64(o.sent) == ahead && o.granted != unbounded:
		return max(0, o.granted-asked), 0
	}
	step := max(1, ahead/2)
	if more = saturate(int64(o.sent), ahead) - asked; more >= step {
		return more, 0
	}
	wake := asked - ahead + step
	if o.granted != unbounded {
		wake = min(wake, o.granted-ahead) // from there on demand is bounded by what was granted
	}
	return 0, uint64(max(1, wake))
}

// ended reports whether nothing more will be written in this direction.
func (o *outgoing) ended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mute
}

func (o *outgoing) stats() SenderStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := SenderStats{Sent: o.sent, Bytes: o.total, Consumed: o.consumed, Credit: o.credit, Waiting: o.waiting, Starved: o.starved}
	if o.waiting > 0 {
		s.Starved += time.Since(o.since)
	}
	if o.over != nil {
		s.Credit = 0
	}
	return s
}

// allowed returns how many elements may be sent now.
func (o *outgoing) allowed() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over != nil || !o.freeLocked() {
		return 0
	}
	return o.credit
}

// why returns why nothing can be sent, nil if something can.
func (o *outgoing) why() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.over
}

// asked reports whether there was any demand.
func (o *outgoing) asked() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wanted || o.over != nil
}

// hush notes that the receiver knows nothing of the protocol: no terminal for it.
func (o *outgoing) hush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mute = true
}

// failure returns why the direction ended, unless it was closed or the call ended with OK, in
// which case all is well.
func (o *outgoing) failure() error {
	if err := o.why(); err != errPeace && !errors.Is(err, ErrClosed) { //nolint:errorlint // this very one
		return err
	}
	return nil
}

// settledLocked reports whether the receiver is done with n elements, or will never say.
func (o *outgoing) settledLocked(n uint64) bool {
	return o.consumed >= n || o.lost != nil || o.sterile
}

// rest waits until the receiver is done with everything that was sent, if it says so.
func (o *outgoing) rest(ctx context.Context) error {
	err := o.wait(ctx, func() bool { return !o.reporting || o.settledLocked(o.sent) })
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.reporting || o.consumed >= o.sent:
		return nil
	case o.lost == errPeace, o.lost == nil && o.sterile: //nolint:errorlint // this very one
		return o.shortLocked()
	case o.lost != nil:
		return o.lost
	}
	return err
}

// shortLocked returns the error that the receiver has left elements unconsumed, if it has.
func (o *outgoing) shortLocked() error {
	if !o.reporting || o.unsure || o.consumed >= o.sent {
		return nil
	}
	return &UnconsumedError{Sent: o.sent, Consumed: o.consumed}
}

// short is shortLocked.
func (o *outgoing) short() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shortLocked()
}

// doubt notes that the receiver may have consumed more than it has reported.
func (o *outgoing) doubt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsure = true
}

// awaitConsumed waits until the receiver is done with n elements.
func (o *outgoing) awaitConsumed(ctx context.Context, n uint64) error {
	err := o.wait(ctx, func() bool { return o.settledLocked(n) })
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.consumed >= n:
		return nil
	case o.lost != nil:
		return o.lost
	case o.sterile:
		return &canceled{reason: leftReason}
	}
	return err
}
