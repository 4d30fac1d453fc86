package streamcredit

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
	"github.com/weir-go/weir/streamcredit/internal/queue"
)

const (
	// unboundedBuffer and unboundedBytes bound the buffer of a receiver with unbounded demand,
	// by elements and by bytes, with one element more. HTTP/2's flow control slows the sender
	// down there. While the receiver drains, drainBuffer and drainBytes are the bounds: Drained
	// comes after everything that is on its way, which HTTP/2's window bounds.
	unboundedBuffer, unboundedBytes = ledger.MostUnbounded, 1 << 20
	drainBuffer, drainBytes         = 1 << 21, 64 << 20
	// weighEvery is the mean number of elements of which an automatic window weighs one.
	weighEvery = 16
)

// incoming is the direction in which this end receives. It has the ledger, the buffer, and the
// goroutines that wait for elements. It does no I/O. It leaves control for the peer in pending.
//
// The read loop and the consumers each have their own lock. Both take mu when a consumer has
// emptied the buffer, or has consumed so much that there may be something to write.
type incoming[I any] struct {
	pending  *pending
	size     func(I) int
	atOnce   bool            // errors overtake elements
	explicit bool            // the application calls Consume
	report   func()          // has pending control written, and does not wait
	lapse    func()          // tells a server's client that more may be consumed than was reported
	gone     <-chan struct{} // closed when the stream's context has ended

	consumed atomic.Int64  // elements that the application is done with
	seen     atomic.Int64  // elements that the application was given
	look     atomic.Int64  // value of consumed at which there may be something to write
	exact    atomic.Bool   // for the sender, an element without a report counts as not consumed
	withheld atomic.Bool   // the application gets no more elements of taken
	full     atomic.Bool   // the read loop waits for room in the buffer
	ready    chan struct{} // of capacity 1; a waiting consumer may find something
	space    chan struct{} // of capacity 1; a full buffer of unbounded demand has room
	done     chan struct{} // closed when no more elements can be requested

	takeMu sync.Mutex    // guards taken; locked before mu, never after it
	taken  queue.FIFO[I] // elements taken out of the buffer, for consumers

	mu sync.Mutex // guards the fields below; held for a few instructions only

	ledger  ledger.In
	account *account // of the budget, or nil
	buffer  queue.FIFO[I]
	held    int64        // bytes in buffer, where demand is unbounded
	weighAt int64        // number of received elements at which to weigh one
	drains  bool         // the sender knows FEATURE_DRAIN
	answer  []chan int64 // wait for Drained; each has capacity 1

	waiting int           // Recvs that wait
	since   time.Time     // when the first of them began
	waited  time.Duration // total time in which a Recv waited, without a wait in progress
	born    time.Time

	prompted time.Time   // when a report was last due at once
	idle     *time.Timer // reports consumed elements
	idleAt   int64       // number of received elements when it was set
}

func newIncoming[I any](c *config, p *pending, size func(I) int) *incoming[I] {
	r := &incoming[I]{
		pending: p, size: size, atOnce: c.errorAtOnce, explicit: c.explicit, born: time.Now(),
		ready: make(chan struct{}, 1), space: make(chan struct{}, 1), done: make(chan struct{}),
	}
	r.ledger.Window, r.ledger.MaxBytes, r.ledger.ByteWindow = c.newWindow(), c.maxMessage, c.byteWindow
	r.aimLocked()
	return r
}

// join makes the receiver take its credit from the budget account a.
func (r *incoming[I]) join(a *account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.account, r.ledger.Budget = a, a
}

// first returns the demand for Open, and the largest number of elements that will ever be
// requested and not consumed.
func (r *incoming[I]) first() (n, held int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = r.ledger.First()
	r.aimLocked()
	return n, r.ledger.Held()
}

// agree applies the features that both ends know, and the sender's largest credit.
func (r *incoming[I]) agree(reports, drains bool, maxCredit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Agree(reports, maxCredit)
	r.drains = drains
	r.exact.Store(reports && r.lapse != nil)
	r.aimLocked()
}

// unleash lifts all bounds, for a sender that does not know the protocol.
func (r *incoming[I]) unleash() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Unleash()
	r.aimLocked()
}

// push adds elements that have arrived. It waits only if demand is unbounded and the buffer is
// full.
func (r *incoming[I]) push(elements []I) *ProtocolError {
	n := int64(len(elements))
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.ledger.Arrive(n); v != nil {
		return broken(v)
	}
	if r.ledger.State().Drops() {
		r.consumed.Add(n)
		r.seen.Add(n)
		r.ledger.Settle(r.consumed.Load())
		return nil
	}
	if v := r.weighLocked(elements); v != nil {
		return broken(v)
	}
	for _, e := range elements {
		r.buffer.Push(e)
		if r.ledger.IsUnbounded() {
			r.held += int64(r.size(e))
		}
	}
	if r.ledger.Owed() > 0 && r.ledger.Bounds() && r.ledger.Low() {
		if more := r.ledger.Due(r.consumed.Load()); more > 0 {
			r.askLocked(more, false)
		}
	}
	r.signalLocked()
	r.awaitSpaceLocked()
	return nil
}

// weighLocked records the sizes of elements that have arrived.
func (r *incoming[I]) weighLocked(elements []I) *ledger.Violation {
	if received := r.ledger.Received(); r.ledger.Auto() && received > r.weighAt {
		r.ledger.Window.Weigh(r.size(elements[rand.N(len(elements))]))
		r.weighAt = received + rand.N[int64](2*weighEvery-1)
	}
	if !r.ledger.Sized() {
		return nil
	}
	for _, e := range elements {
		if v := r.ledger.Weigh(int64(r.size(e)), r.consumed.Load); v != nil {
			return v
		}
	}
	return nil
}

// awaitSpaceLocked waits while a buffer of unbounded demand is full.
func (r *incoming[I]) awaitSpaceLocked() {
	for r.fullLocked() && r.ledger.State().Live() {
		r.full.Store(true)
		r.mu.Unlock()
		gone := false
		select {
		case <-r.space:
		case <-r.done:
		case <-r.gone:
			gone = true
		}
		r.mu.Lock()
		r.full.Store(false)
		if gone {
			return
		}
	}
}

// fullLocked reports whether a buffer of unbounded demand has no room.
func (r *incoming[I]) fullLocked() bool {
	elements, bytes := unboundedBuffer, int64(unboundedBytes)
	if r.ledger.State() == ledger.InDraining {
		elements, bytes = drainBuffer, drainBytes
	}
	return r.ledger.IsUnbounded() && (r.buffer.Len() >= elements || r.held >= bytes)
}

// signalLocked wakes one of the consumers that wait.
func (r *incoming[I]) signalLocked() {
	if r.waiting > 0 {
		signal(r.ready)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// next returns the next element, or why there is none.
func (r *incoming[I]) next(ctx context.Context) (element I, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return element, err
		}
		if element, ok, err := r.pop(); ok || err != nil {
			return element, err
		}
		r.park(ctx)
	}
}

// pop returns an element, if there is one.
func (r *incoming[I]) pop() (element I, ok bool, err error) {
	r.takeMu.Lock()
	defer r.takeMu.Unlock()
	if r.withheld.Load() {
		return element, false, r.why()
	}
	if r.taken.Len() == 0 {
		if err := r.refill(); r.taken.Len() == 0 {
			return element, false, err
		}
	}
	element = r.taken.Pop()
	r.seen.Add(1)
	return element, true, nil
}

// refill takes everything out of the buffer, and returns the reason if nothing follows. It looks
// at both under one lock, or elements that arrive in between would be lost. The caller holds
// r.takeMu.
func (r *incoming[I]) refill() (end error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buffer, r.taken, r.held = r.taken, r.buffer, 0
	if r.taken.Len() > 1 && r.waiting > 0 {
		r.signalLocked()
	}
	if r.ledger.IsUnbounded() {
		signal(r.space)
	}
	return r.ledger.Why()
}

// park waits until there may be something to take, or ctx ends.
func (r *incoming[I]) park(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ledger.Received() > r.seen.Load() || !r.ledger.State().Live() {
		return
	}
	last, start := r.ledger.Received(), time.Now()
	if r.waiting++; r.waiting == 1 {
		r.since = start
		r.aimLocked() // other consumers may finish their elements from now on
	}
	if r.ledger.Reports() && r.consumed.Load() > r.ledger.Reported() {
		r.armLocked()
	}
	r.mu.Unlock()
	select {
	case <-r.ready:
	case <-r.done:
	case <-ctx.Done():
	}
	r.mu.Lock()
	now := time.Now()
	if r.waiting--; r.waiting == 0 {
		r.waited += now.Sub(r.since)
		r.aimLocked()
	}
	r.ledger.Window.Waited(uint64(last), now.Sub(start))
	if r.ledger.Received() > r.seen.Load() {
		r.signalLocked() // there may be elements for another consumer, or this one may leave
	}
}

func (r *incoming[I]) stats() ReceiverStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, seen, consumed := &r.ledger, r.seen.Load(), r.consumed.Load()
	s := ReceiverStats{
		Received: uint64(l.Received()), ReceivedBytes: uint64(l.Bytes()), Consumed: uint64(consumed),
		Buffered: int(l.Received() - seen), Held: int(max(0, seen-consumed)),
		Window: l.Size(), Waiting: r.waiting, Waited: r.waited,
	}
	if l.State().Live() {
		s.Outstanding = l.Outstanding()
	}
	if r.waiting > 0 {
		s.Waited += time.Since(r.since)
	}
	return s
}
