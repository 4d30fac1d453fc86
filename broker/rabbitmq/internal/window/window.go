// Package window is the arithmetic of a consumer with a prefetch count that follows the demand.
// It has no lock, no clock and no connection.
package window

import "math"

const (
	// MaxPrefetch is the largest prefetch count of the protocol.
	MaxPrefetch = math.MaxUint16
	// maxWant bounds the demand, so that sums cannot overflow.
	maxWant = math.MaxInt32 / 2
	// leap is the least surplus that is worth a larger consumer at once.
	leap = 8
	// share is the part of the prefetch count that is worth a larger consumer after one
	// tick. A smaller surplus must last for patience ticks.
	share    = 8
	patience = 4
)

// A Window is the account of one source. The broker may count at most as many messages as
// unacknowledged as are wanted, that is, requested and not settled. It can count
//
//	prefetch  messages of the running consumer, sent or yet to be sent,
//	orphans   messages of consumers that were canceled, on the same channel,
//	unproven  of these that were settled, while the broker has not confirmed it,
//
// and stale messages of lost channels, which are no longer at the broker but still held
// here, take up demand as well. The sum of the four is the commitment. It never exceeds
// the demand, except while an acknowledgement waits for the broker before it returns.
type Window struct {
	want     int // requested and not settled
	prefetch int // of the running consumer; 0 without
	active   int // deliveries of the running consumer that are not settled
	settling int // of these, the ones with a settlement that is being written
	orphans  int
	unproven int
	stale    int

	low   int // the smallest surplus since the last tick
	ticks int // ticks in a row with a surplus that lasted
}

// Request adds n to the demand.
func (w *Window) Request(n int) { w.want += min(n, maxWant-w.want) }

// Wanted returns the demand.
func (w *Window) Wanted() int { return w.want }

// Prefetch returns the prefetch count of the running consumer, or 0 if none runs.
func (w *Window) Prefetch() int { return w.prefetch }

// Held returns how many deliveries are not settled.
func (w *Window) Held() int { return w.active + w.orphans + w.stale }

// Fits reports whether the commitment does not exceed the demand.
func (w *Window) Fits() bool { return w.commitment() <= w.want }

func (w *Window) commitment() int { return w.prefetch + w.orphans + w.unproven + w.stale }

// Quiet reports whether the broker has sent all that the running consumer may get, and no
// settlement is on its way that would let it send more. Canceling the consumer then cannot
// cross with a delivery.
func (w *Window) Quiet() bool { return w.active >= w.prefetch && w.settling == 0 }

// Deliver notes a delivery to the running consumer.
func (w *Window) Deliver() { w.active++ }

// Begin reserves the settlement of a delivery to the running consumer. It returns false if
// the broker could then send more than is wanted. The consumer must be canceled first.
func (w *Window) Begin() bool {
	if w.commitment() > w.want-w.settling-1 {
		return false
	}
	w.settling++
	return true
}

// EndActive notes the settlement of a delivery to the running consumer, after Begin.
func (w *Window) EndActive() {
	w.settling--
	w.active--
	w.settled()
}

// EndOrphan notes that the settlement of an orphan was sent. It counts until Prove.
func (w *Window) EndOrphan() {
	w.orphans--
	w.unproven++
	w.settled()
}

// EndStale notes that a message of a lost channel is no longer held.
func (w *Window) EndStale() {
	w.stale--
	w.settled()
}

func (w *Window) settled() {
	w.want--
	w.low = min(w.low, w.surplus())
}

// Prove notes that the broker has processed n settlements of orphans.
func (w *Window) Prove(n int) { w.unproven -= n }

// Cancel notes that the consumer was canceled. Its unsettled deliveries become orphans,
// even if their settlement has begun.
func (w *Window) Cancel() {
	w.orphans += w.active
	w.prefetch, w.active, w.settling = 0, 0, 0
}

// Lose notes that the channel is lost. The broker takes all its messages back. The ones in the
// buffer are forgotten, and the others are still held.
func (w *Window) Lose(buffered int) {
	w.stale += w.active + w.orphans - buffered
	w.prefetch, w.active, w.settling, w.orphans, w.unproven = 0, 0, 0, 0, 0
}

// Start returns the prefetch count for a new consumer, and notes that it runs. It returns 0
// if there is no room. The broker must have confirmed all settlements that were sent before
// it starts the consumer.
func (w *Window) Start() int {
	w.prefetch = max(0, min(w.surplus(), MaxPrefetch))
	w.low, w.ticks = 0, 0
	return w.prefetch
}

// surplus returns by how much the prefetch count could grow.
func (w *Window) surplus() int {
	return min(w.want-w.orphans-w.stale, MaxPrefetch) - w.prefetch
}

// Short reports whether the running consumer is too small. The broker has then sent all that
// the consumer may get, and more is wanted.
func (w *Window) Short() bool { return w.surplus() > 0 && w.active >= w.prefetch }

// Urgent reports whether a larger consumer should start at once. That is so if none runs,
// and if its prefetch count would double.
func (w *Window) Urgent() bool {
	return w.Short() && (w.prefetch == 0 || w.surplus() >= max(leap, w.prefetch))
}

// Tick is called from time to time while Short is true. It reports whether a larger
// consumer should start, because the surplus has lasted. A program that requests a message
// before it acknowledges one makes surpluses that do not last.
func (w *Window) Tick() bool {
	lasting := w.low
	w.low = max(0, w.surplus())
	if lasting <= 0 || !w.Short() {
		w.ticks = 0
		return false
	}
	w.ticks++
	return lasting*share >= w.prefetch || w.ticks >= patience
}

// Arm begins to watch the surplus for Tick.
func (w *Window) Arm() { w.low, w.ticks = max(0, w.surplus()), 0 }
