package streamcredit

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

const (
	// unboundedBuffer is how many elements a receiver holds that asked for no end of
	// them, and unboundedBytes their size, with one more: there it is HTTP/2's flow control
	// that slows the sender down. While it drains it holds more: Drained comes after all
	// that is on its way, which a window of HTTP/2 bounds, by default to 16 MiB.
	unboundedBuffer, unboundedBytes = 1 << 10, 1 << 20
	drainBuffer, drainBytes         = 1 << 21, 64 << 20
	// idleReport is how soon a receiver that has nothing to do reports what it is done
	// with.
	idleReport = 100 * time.Millisecond
	// weighEvery is of how many elements an automatic window weighs one, at random.
	weighEvery = 16
	// promptFirst is how many elements a server reports one by one, and prompts how many
	// reports it writes at once, besides one each idleReport: see promptLocked.
	promptFirst, prompts = 16, 64
	// never is a number of elements that is not reached.
	never = math.MaxInt64
)

// incoming is the ledger and the buffer of the direction in which this side receives.
// It does no I/O: what is to be written it leaves in pending.
//
// The read loop and the consumers each have a lock of their own, and meet at mu only
// when a consumer has taken all that there was, or has consumed so much that there may
// be something to write: that is once for many elements.
type incoming[I any] struct {
	pending  *pending
	size     func(I) int
	account  *account        // of the budget; nil: none
	atOnce   bool            // errors overtake elements
	explicit bool            // the application says what is consumed
	report   func()          // has pending control written
	lapse    func()          // of a server: tells its client that more may be consumed than was reported
	gone     <-chan struct{} // the stream's context has ended

	consumed atomic.Int64  // what the application is done with
	seen     atomic.Int64  // what it was given
	look     atomic.Int64  // at so many consumed, there may be something to do
	exact    atomic.Bool   // the sender may take elements that were not reported for not consumed
	cut      atomic.Bool   // what is taken is not to be given to anybody
	full     atomic.Bool   // the read loop waits for the application
	ready    chan struct{} // of one place: there may be something for one of those that wait
	space    chan struct{} // of one place: a full buffer of unbounded demand has room
	done     chan struct{} // closed with over

	takeMu sync.Mutex // guards taken; locked before mu, never after it
	taken  queue[I]   // out of the buffer, for consumers

	mu sync.Mutex // guards what follows; held for a few instructions only

	window    window
	granted   int64     // all that was asked for, and not burned; saturates
	maxCredit int64     // the most that the sender takes at once; 0: any
	received  int64     // all that has arrived
	weighAt   int64     // with which of them to weigh one
	reported  int64     // what the sender knows of what is consumed
	reports   bool      // the sender wants to know all of it
	prompts   int64     // reports that may still be written at once, where exact is set
	earned    time.Time // until when they were counted
	buffer    queue[I]
	held      int64 // the bytes in buffer, where demand is unbounded

	maxBytes   int64        // the largest element; 0: any
	byteWindow int64        // 0: none
	sizes      queue[int64] // of the elements that are not consumed, where they are counted
	counted    int64        // the number of consumed elements whose sizes are gone from sizes
	bytes      int64        // the sum of sizes
	unreported int64        // the bytes of consumed elements that the sender does not know of
	total      int64        // bytes received

	drains   bool         // the sender knows how to drain
	draining bool         // a drain was asked for: no demand until it is answered
	owed     int64        // manual demand that waits for that, or for the budget
	dropped  int64        // and what of it was taken back before it was asked for
	answer   []chan int64 // and who else does; each has one place

	over     error // what Recv returns after the last element; io.EOF is the end
	terminal bool  // the sender has ended
	quit     bool  // this side has canceled: what still arrives is dropped

	waiting int           // Recvs that wait
	since   time.Time     // when the first of them began
	waited  time.Duration // the sum of these times, over
	born    time.Time
	judged  int64       // consumed when the window was last judged
	idle    *time.Timer // reports what is consumed
	idleAt  int64       // received when it was set
}

func newIncoming[I any](c *config, p *pending, size func(I) int) *incoming[I] {
	r := &incoming[I]{
		pending: p, size: size, maxBytes: c.maxMessage, byteWindow: c.byteWindow, atOnce: c.errorAtOnce, explicit: c.explicit,
		window: c.newWindow(), born: time.Now(),
		ready: make(chan struct{}, 1), space: make(chan struct{}, 1), done: make(chan struct{}),
	}
	r.aimLocked()
	return r
}

// first returns what Open asks for, and how many elements there may ever be.
func (r *incoming[I]) first() (n, held int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = r.replenishLocked()
	r.granted += n
	r.aimLocked()
	return n, max(r.window.size, r.window.max)
}

// agree takes over what both sides know.
func (r *incoming[I]) agree(reports, drains bool, maxCredit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports, r.drains = reports, drains
	r.prompts, r.earned, r.maxCredit = prompts, time.Now(), maxCredit
	if maxCredit > 0 {
		r.window.bound(maxCredit)
	}
	r.exact.Store(reports && r.lapse != nil)
	r.aimLocked()
}

// unleash lifts all bounds, for a sender that knows nothing of them.
func (r *incoming[I]) unleash() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.granted, r.maxBytes, r.byteWindow = unbounded, 0, 0
	r.aimLocked()
}

// sizedLocked reports whether the size of each element is needed.
func (r *incoming[I]) sizedLocked() bool {
	return r.byteWindow > 0 || r.maxBytes > 0 || r.account != nil
}

// push takes in what has arrived. It waits only where demand is unbounded.
func (r *incoming[I]) push(elements []I) *ProtocolError {
	n := int64(len(elements))
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.terminal:
		return violation(AfterTerminal, "nothing after Complete or Error", "an element")
	case r.granted != unbounded && n > r.granted-r.received:
		return violation(CreditExceeded, fmt.Sprintf("at most %d", r.granted), "element %d", r.received+n)
	}
	if r.quit { // nobody will have it, so it weighs nothing
		r.received += n
		r.consumed.Add(n)
		r.seen.Add(n)
		r.unweighLocked()
		return nil
	}
	if v := r.weighLocked(elements); v != nil {
		return v
	}
	r.received += n
	for _, e := range elements {
		r.buffer.push(e)
		if r.granted == unbounded {
			r.held += int64(r.size(e))
		}
	}
	if r.owed > 0 && r.maxCredit > 0 && r.granted-r.received <= r.maxCredit/2 {
		if more := r.dueLocked(); more > 0 {
			r.askLocked(more, false)
		}
	}
	r.signalLocked()
	for r.fullLocked() && r.over == nil {
		r.full.Store(true)
		r.mu.Unlock()
		select {
		case <-r.space:
		case <-r.done:
		case <-r.gone:
			r.mu.Lock()
			r.full.Store(false)
			return nil
		}
		r.mu.Lock()
		r.full.Store(false)
	}
	return nil
}

// fullLocked reports whether a buffer of unbounded demand has no room.
func (r *incoming[I]) fullLocked() bool {
	elements, bytes := unboundedBuffer, int64(unboundedBytes)
	if r.draining {
		elements, bytes = drainBuffer, drainBytes
	}
	return r.granted == unbounded && (r.buffer.len() >= elements || r.held >= bytes)
}

// weighLocked accounts for the sizes of elements that arrive.
func (r *incoming[I]) weighLocked(elements []I) *ProtocolError {
	if n := int64(len(elements)); r.window.auto && r.received+n > r.weighAt {
		r.window.weigh(r.size(elements[rand.N(n)]))
		r.weighAt = r.received + n + rand.N[int64](2*weighEvery-1)
	}
	if !r.sizedLocked() {
		return nil
	}
	for _, e := range elements {
		size := int64(r.size(e))
		switch {
		case r.maxBytes > 0 && size > r.maxBytes:
			return violation(MessageTooLarge, fmt.Sprintf("at most %d", r.maxBytes), "an element of %d bytes", size)
		case r.byteWindow > 0 && r.bytes >= r.byteWindow:
			r.unweighLocked() // what is consumed meanwhile
			if r.bytes >= r.byteWindow {
				return violation(BytesExceeded, fmt.Sprintf("none while %d bytes are outstanding", r.byteWindow),
					"an element, with %d", r.bytes)
			}
		}
		r.sizes.push(size)
		r.bytes += size
		r.total += size
		r.account.arrived(size)
	}
	return nil
}

// unweighLocked lets go of the sizes of what is consumed.
func (r *incoming[I]) unweighLocked() {
	consumed := r.consumed.Load()
	n := min(consumed-r.counted, int64(r.sizes.len()))
	r.counted = consumed
	if n <= 0 {
		return
	}
	var sum int64
	for range n {
		sum += r.sizes.pop()
	}
	r.bytes -= sum
	r.unreported += sum
	r.account.consumed(n, sum)
}

// signalLocked tells one of those that wait.
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
	if r.cut.Load() {
		return element, false, r.why()
	}
	if r.taken.len() == 0 {
		if err := r.refill(); r.taken.len() == 0 {
			return element, false, err
		}
	}
	element = r.taken.pop()
	r.seen.Add(1)
	return element, true, nil
}

// refill takes all that there is out of the buffer, and returns why nothing follows, if so:
// both at one moment, or what comes in between would be lost. r.takeMu is held.
func (r *incoming[I]) refill() (over error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buffer, r.taken, r.held = r.taken, r.buffer, 0
	if r.taken.len() > 1 && r.waiting > 0 {
		r.signalLocked()
	}
	if r.granted == unbounded {
		signal(r.space)
	}
	return r.over
}

// park waits until there may be something, or ctx ends.
func (r *incoming[I]) park(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.received > r.seen.Load() || r.over != nil {
		return
	}
	last, start := r.received, time.Now()
	if r.waiting++; r.waiting == 1 {
		r.since = start
		r.aimLocked() // others may be done with theirs from now on
	}
	if r.reports && r.consumed.Load() > r.reported {
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
	r.window.waited(uint64(last), now.Sub(start))
	if r.received > r.seen.Load() {
		r.signalLocked() // there may be more than for this one, or this one may leave
	}
}

// armLocked has consumed elements reported soon, if nothing arrives before.
func (r *incoming[I]) armLocked() {
	r.idleAt = r.received
	if r.idle == nil {
		r.idle = time.AfterFunc(idleReport, r.fire)
	} else {
		r.idle.Reset(idleReport)
	}
}

// fire reports what is consumed if nothing has arrived since armLocked.
func (r *incoming[I]) fire() {
	r.mu.Lock()
	still := r.idleAt == r.received && r.consumed.Load() > r.reported && !r.quit
	if still {
		r.askLocked(0, false)
	}
	r.mu.Unlock()
	if still {
		r.report()
	}
}

// ask adds demand of the application's own, unbounded only if it may be.
func (r *incoming[I]) ask(n int64, unboundedToo bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !unboundedToo && saturate(r.granted, saturate(r.owed, n)) == unbounded {
		return invalid("got demand without bound on a stream that sends, too, want it bounded")
	}
	r.owed = saturate(r.owed, n)
	if more := r.dueLocked(); more > 0 || r.over != nil {
		r.askLocked(more, false)
	}
	r.aimLocked()
	return nil
}

// dueLocked returns how much of the demand that is owed can be asked for now.
func (r *incoming[I]) dueLocked() int64 {
	if r.over != nil || r.draining || r.owed == 0 {
		return 0
	}
	want := r.owed
	if r.maxCredit > 0 {
		want = min(want, r.maxCredit-(r.granted-r.received))
		if r.owed == unbounded { // the bound of the buffer, which does not hold the read loop here
			want = min(want, unboundedBuffer-(r.granted-r.consumed.Load()))
		}
	}
	if want <= 0 {
		return 0
	}
	more := r.account.take(want)
	if r.owed != unbounded || more == unbounded {
		r.owed -= more
	}
	return more
}

// askLocked has a Request written, with what is consumed.
func (r *incoming[I]) askLocked(n int64, drain bool) {
	if r.over != nil {
		if n, drain = 0, false; r.consumed.Load() == r.reported {
			return
		}
	}
	if n > 0 {
		r.window.granted(uint64(r.granted))
	}
	r.granted = saturate(r.granted, n)
	r.unweighLocked()
	r.reported, r.unreported = r.counted, 0
	if drain {
		r.draining = true
		signal(r.space) // there is more of it now
	}
	r.pending.ask(n, uint64(r.reported), drain)
	r.aimLocked()
}

// aimLocked sets how much has to be consumed until there may be something to ask for or
// to report.
func (r *incoming[I]) aimLocked() {
	switch {
	case r.sizedLocked() || r.over != nil || r.explicit || r.waiting > 0 && r.reports || r.exact.Load() || r.owed > 0 && r.maxCredit > 0:
		r.look.Store(0)
	case r.window.size == 0 || r.granted == unbounded || r.draining:
		r.look.Store(never)
	default:
		r.look.Store(r.granted - r.window.size + r.window.chunk())
	}
}

// did notes that the application is done with n elements, and asks for more where it is
// time to. It reports whether the sender has ended.
func (r *incoming[I]) did(n int) (over bool) {
	if r.consumed.Add(int64(n)) < r.look.Load() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unweighLocked()
	switch more := saturate(r.replenishLocked(), r.dueLocked()); {
	case more > 0:
		r.askLocked(more, false)
	case r.byteWindow > 0 && r.unreported >= (r.byteWindow+1)/2, r.finalLocked(), r.promptLocked():
		r.askLocked(0, false)
	case r.reports && r.received == r.seen.Load() && r.consumed.Load() > r.reported:
		r.armLocked() // nobody need call Recv after this
	}
	return r.over != nil
}

// promptLocked reports whether a report is due at once, because the handler may return now:
// on a server nothing can be written after that. The first elements are reported one by one,
// and then whenever there are no more. That is too dear where elements follow each other
// closely: when the reports for it are used up, the sender is told not to be sure.
func (r *incoming[I]) promptLocked() bool {
	consumed := r.consumed.Load()
	if !r.exact.Load() || r.quit || consumed <= r.reported || consumed > promptFirst && r.received != r.seen.Load() {
		return false
	}
	if r.prompts == 0 {
		r.prompts = min(int64(time.Since(r.earned)/idleReport), prompts)
		r.earned = time.Now()
	}
	if r.prompts == 0 {
		if !r.terminal { // else the last report is written in time
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

// finalLocked reports whether the last report is due: that everything is consumed.
func (r *incoming[I]) finalLocked() bool {
	consumed := r.consumed.Load()
	return r.reports && r.over != nil && !r.quit && consumed == r.received && consumed > r.reported
}

// replenishLocked returns how much to ask for now: nothing, until outstanding credit is
// down to the low-water mark.
func (r *incoming[I]) replenishLocked() int64 {
	if r.over != nil || r.draining || r.granted == unbounded {
		return 0
	}
	consumed := r.consumed.Load()
	room := r.window.room(r.granted - consumed)
	if room == 0 {
		return 0
	}
	if r.window.auto {
		r.window.judge(consumed-r.judged, int(r.received-r.seen.Load()), time.Since(r.born))
		r.judged = consumed
		room = max(0, r.window.size-(r.granted-consumed))
	}
	return r.account.take(room)
}

// retry returns what has the receiver ask for more, when its budget may have some.
func (r *incoming[I]) retry(write func()) func() {
	return func() {
		r.mu.Lock()
		r.account.want(false) // unless it gets too little again
		more := saturate(r.dueLocked(), r.replenishLocked())
		if more > 0 {
			r.askLocked(more, false)
		}
		r.mu.Unlock()
		if more > 0 {
			write()
		}
	}
}

// reclaim returns what has the receiver give unused credit back to its budget.
func (r *incoming[I]) reclaim(write func()) func() {
	return func() {
		r.mu.Lock()
		idle := r.drains && !r.draining && r.over == nil
		if idle {
			r.askLocked(0, true)
		}
		r.mu.Unlock()
		if idle {
			write()
		}
	}
}

// drain asks for a drain. What it returns receives how much was given back.
func (r *incoming[I]) drain() (<-chan int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.over != nil:
		return nil, r.over
	case !r.drains:
		return nil, invalid("got Drain with a sender that does not know FEATURE_DRAIN")
	case !r.draining:
		r.askLocked(0, true)
	}
	r.dropped, r.owed = saturate(r.dropped, r.owed), 0
	r.account.want(false)
	answer := make(chan int64, 1)
	r.answer = append(r.answer, answer)
	return answer, nil
}

// drained takes in the answer to a drain.
func (r *incoming[I]) drained(d *creditpb.Drained) *ProtocolError {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.terminal:
		return violation(AfterTerminal, "nothing after Complete or Error", "Drained")
	case !r.draining:
		return violation(UnexpectedFrame, "one after a Request with drain", "Drained")
	case d.GetSent() != uint64(r.received):
		return violation(CountMismatch, fmt.Sprint(r.received), "Drained.sent %d", d.GetSent())
	}
	burned := r.granted - r.received
	r.account.burned(burned)
	r.granted, r.draining = r.received, false
	reclaimed := len(r.answer) == 0 // for the budget: the demand stays
	if reclaimed && r.window.size == 0 {
		r.owed = saturate(r.owed, burned)
	}
	for _, a := range r.answer {
		a <- saturate(burned, r.dropped)
	}
	r.answer, r.dropped = nil, 0
	r.aimLocked()
	if reclaimed {
		r.account.want(true) // when others had their turn
	} else if more := saturate(r.dueLocked(), r.replenishLocked()); more > 0 {
		r.askLocked(more, false)
	}
	return nil
}

// finish takes in the sender's terminal: err is io.EOF for Complete. total is what it
// says to have sent, or nil.
func (r *incoming[I]) finish(err error, total *uint64) *ProtocolError {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.terminal:
		return violation(AfterTerminal, "nothing after Complete or Error", "a second one")
	case total != nil && *total != uint64(r.received):
		return violation(CountMismatch, fmt.Sprint(r.received), "total %d", *total)
	}
	r.terminal = true
	r.endLocked(err)
	if r.finalLocked() {
		r.askLocked(0, false)
	}
	return nil
}

// end has Recv return err after the buffered elements. The first wins.
func (r *incoming[I]) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(err)
}

func (r *incoming[I]) endLocked(err error) {
	if r.over != nil {
		return
	}
	r.over = err
	close(r.done)
	if r.atOnce && err != io.EOF && err != ErrGoingAway { //nolint:errorlint // the bare ones are ends in order
		r.cut.Store(true)
	}
	if r.idle != nil {
		r.idle.Stop()
	}
	r.account.close()
	r.aimLocked()
}

// cancel drops everything, now and later. It reports whether the sender is to be told: it has
// not ended, or it waits to hear that everything is consumed.
func (r *incoming[I]) cancel() (tell bool) {
	r.takeMu.Lock()
	defer r.takeMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	tell = !r.quit && (!r.terminal || r.reports && r.consumed.Load() < r.received)
	r.endLocked(ErrClosed)
	r.over = ErrClosed
	r.dropLocked()
	r.releaseLocked() // what the application has is its own now
	return tell
}

// abandon gives back to the budget what is not consumed. It drops it as well, if drop is set
// and the sender had not ended.
func (r *incoming[I]) abandon(drop bool) {
	r.takeMu.Lock()
	defer r.takeMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if drop && !r.terminal {
		r.dropLocked()
	}
	r.releaseLocked()
}

// dropLocked drops what is buffered and all that still arrives. r.takeMu is held, too.
func (r *incoming[I]) dropLocked() {
	r.quit = true
	r.cut.Store(true)
	r.consumed.Add(int64(r.taken.len() + r.buffer.len()))
	r.taken.clear()
	r.buffer.clear()
	r.held = 0
	r.seen.Store(r.received)
	r.unweighLocked()
}

func (r *incoming[I]) releaseLocked() {
	r.account.consumed(int64(r.sizes.len()), r.bytes)
	r.sizes.clear()
	r.bytes = 0
}

// why returns what Recv returns at the end, nil before it.
func (r *incoming[I]) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}

// complete reports whether everything was received and seen.
func (r *incoming[I]) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.terminal && !r.quit && r.received == r.seen.Load()
}

// spent reports whether there is nothing more to write in favour of this direction.
func (r *incoming[I]) spent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over != nil && (r.quit || r.received == r.seen.Load() && (!r.reports || r.received == r.reported))
}

// claim has n elements count as consumed if the application has so many that do not. It
// returns how many there were.
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

func (r *incoming[I]) stats() ReceiverStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, consumed := r.seen.Load(), r.consumed.Load()
	s := ReceiverStats{
		Received: uint64(r.received), Bytes: r.total, Consumed: uint64(consumed),
		Buffered: int(r.received - seen), Held: int(max(0, seen-consumed)),
		Window: int(r.window.size), Waiting: r.waiting, Waited: r.waited,
	}
	if r.over == nil && r.granted == unbounded {
		s.Outstanding = unbounded
	} else if r.over == nil {
		s.Outstanding = r.granted - r.received
	}
	if r.waiting > 0 {
		s.Waited += time.Since(r.since)
	}
	return s
}
