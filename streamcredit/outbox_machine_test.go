package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// largest is the bound of an element in the streams of a boxMachine, in bytes.
const largest = 32

// A numberBox is an Outbox whose elements are numbers, whatever carries them.
type numberBox interface {
	put(ctx context.Context, n int64, large bool) error
	Close(ctx context.Context) error
	Stats() streamcredit.OutboxStats
}

type boxOf[T any] struct {
	*streamcredit.Outbox[T]

	wrap func(int64) T
}

func (b boxOf[T]) put(ctx context.Context, n int64, large bool) error {
	e := b.wrap(n)
	if large {
		e = enlarged(e)
	}
	return b.Put(ctx, e)
}

// enlarged returns e with more than largest bytes.
func enlarged[T any](e T) T {
	payload := make([]byte, largest+1)
	switch e := any(e).(type) {
	case []byte:
		return any(append(e, payload...)).(T)
	case *demopb.SubscribeResponse:
		e.Payload = payload
	case *demopb.UploadRequest:
		e.Payload = payload
	case *demopb.ConvertRequest:
		e.Payload = payload
	}
	return e
}

func newBox(ctx context.Context, out outlet, c streamcredit.OutboxConfig) (numberBox, error) {
	switch o := out.(type) {
	case outOf[[]byte]:
		b, err := streamcredit.NewOutbox(ctx, o.Sender, c)
		return boxOf[[]byte]{b, o.wrap}, err
	case outOf[*demopb.SubscribeResponse]:
		b, err := streamcredit.NewOutbox(ctx, o.Sender, c)
		return boxOf[*demopb.SubscribeResponse]{b, o.wrap}, err
	case outOf[*demopb.UploadRequest]:
		b, err := streamcredit.NewOutbox(ctx, o.Sender, c)
		return boxOf[*demopb.UploadRequest]{b, o.wrap}, err
	}
	return nil, fmt.Errorf("no outbox for %T", out)
}

// A boxSetting is the shape of a boxMachine.
type boxSetting struct{ Kind, Policy, Capacity, Pace byte }

const (
	boxPut = iota
	boxPutLarge
	boxRecv
	boxRequest
	boxConsume
	boxDrain
	boxInterrupt
	boxShut
	boxOpen
	boxSleep
	boxClose
	boxCancel
	boxStop
	boxEnd
	boxBreak
)

var boxKinds = []stepKind{
	boxPut: {"put", 60}, boxPutLarge: {"put large", 6}, boxRecv: {"recv", 46}, boxRequest: {"request", 46},
	boxConsume: {"consume", 20}, boxDrain: {"drain", 6}, boxInterrupt: {"interrupt", 14}, boxShut: {"shut", 12},
	boxOpen: {"open", 14}, boxSleep: {"sleep", 6}, boxClose: {"close", 6}, boxCancel: {"cancel", 3}, boxStop: {"stop", 4},
	boxEnd: {"end", 3}, boxBreak: {"break", 4},
}

// A boxMachine plays a script on an outbox and its receiver, and compares what it sees with what
// must hold.
type boxMachine struct {
	pace
	tape

	ends   *ends
	from   int // the end that sends
	valve  *valve
	meter  *streamcredit.Meter
	budget *streamcredit.Budget
	policy streamcredit.Policy
	size   int
	box    numberBox
	out    outlet
	in     inlet
	stop   context.CancelFunc // of the outbox's context

	puts    [slots]*call
	recv    *call
	close   *call
	slept   nap
	drained *call

	canceled bool // the receiver wants no more
	ended    bool // the script has closed the sender itself
	stopped  bool // the outbox's context has ended
	broken   bool // the call has ended, or may end

	// The lock of the tape guards these, too.
	next     [slots]int64
	accepted [slots][]int64
	large    map[int64]bool
	taken    int    // elements for which Put returned nil
	full     int    // elements for which Put returned ErrOutboxFull
	closing  uint64 // elements dropped when Close began
	crossing int    // Puts that were made at the same time or later
	closed   error  // what Close returned
}

func newBoxMachine(t testing.TB, how boxSetting) (*boxMachine, error) {
	k := [...]kind{framesDown, framesUp, subscribes, uploads}[how.Kind%4]
	m := &boxMachine{
		valve: &valve{}, meter: streamcredit.NewMeter("box"), policy: 1 + streamcredit.Policy(how.Policy%5), size: 1 + int(how.Capacity%4),
		pace: paceOf(how.Pace, k.framed()), large: map[int64]bool{},
	}
	receiver := append(m.options(), streamcredit.WithMaxMessageBytes(largest))
	if how.Pace&32 != 0 {
		m.budget = newBudget(t, streamcredit.BudgetConfig{Messages: 100})
		receiver = append(receiver, streamcredit.WithBudget(m.budget))
	}
	sender := opened(streamcredit.WithMeter(m.meter), streamcredit.WithFirstRequestTimeout(0))
	if how.Pace&64 != 0 {
		sender = append(sender, streamcredit.WithMaxPeerCredit(3))
	}
	client, server := receiver, sender
	if m.from = serverEnd; k == framesUp || k == uploads {
		client, server, m.from = sender, receiver, clientEnd
	}
	m.ends = connect(t, k, client, server, m.valve.options()...)
	m.out, m.in = m.ends.down()
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	var err error
	m.box, err = newBox(ctx, m.out, streamcredit.OutboxConfig{Capacity: m.size, Policy: m.policy})
	if m.policy == streamcredit.Latest {
		m.size = 1
	}
	return m, err
}

// playBox plays a script and returns what went wrong first. It runs in a bubble.
func playBox(t testing.TB, how boxSetting, script []move) error {
	m, err := newBoxMachine(t, how)
	if err != nil {
		return err
	}
	defer m.release()
	return playScript(m, script)
}

func (m *boxMachine) step(o move) error {
	arg := o.arg
	switch o.kind {
	case boxPut, boxPutLarge:
		m.put(arg%slots, o.kind == boxPutLarge)
	case boxRecv:
		m.receive(&m.recv, m.in, m.explicit)
	case boxRequest:
		return m.request(arg)
	case boxConsume:
		synctest.Wait()
		if n := m.unconsumed(); m.explicit && n > 0 {
			n = 1 + arg%n
			m.consumed += int64(n)
			return m.receiver(func() error { return m.in.Consume(n) })
		}
	case boxDrain:
		if m.manual {
			begin(&m.drained, func(ctx context.Context, c *call) { c.n, c.err = m.in.Drain(ctx) })
		}
	case boxInterrupt:
		calls := []*call{m.puts[0], m.puts[1], m.puts[2], m.recv, m.drained, m.close}
		calls[arg%len(calls)].interrupt()
	case boxShut:
		m.valve.shut(arg % 2)
	case boxOpen:
		m.valve.open(arg % 2)
	case boxSleep:
		m.slept.sleep(time.Duration(arg) * 10 * time.Millisecond)
	case boxClose:
		m.shutBox()
	case boxCancel:
		m.canceled = true
		return m.receiver(func() error { m.in.Cancel("the script says so"); return nil })
	case boxStop:
		m.stopped = true
		m.stop()
	case boxEnd:
		m.ended = true
		go endings[arg%len(endings)].by(m.out) // waits for the transport
	default:
		m.broken = true
		go m.ends.breakOff(arg) // waits for the transport
	}
	return nil
}

func (m *boxMachine) put(slot int, large bool) {
	if m.close != nil && !m.puts[slot].running() {
		m.crossing++
	}
	begin(&m.puts[slot], func(ctx context.Context, c *call) {
		m.mu.Lock()
		n := number(slot, m.next[slot])
		m.next[slot]++
		m.large[n] = large
		m.mu.Unlock()
		c.err = m.box.put(ctx, n, large)
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case c.err == nil:
			m.taken++
			m.accepted[slot] = append(m.accepted[slot], n)
		case errors.Is(c.err, streamcredit.ErrOutboxFull):
			m.full++
		}
	})
}

func (m *boxMachine) request(arg int) error {
	n := int64(1 + arg%8)
	if arg > 250 {
		n = math.MaxInt64
	}
	if !m.manual {
		return nil
	}
	return m.receiver(func() error { return m.in.Request(n) })
}

// receiver calls f, a method of the receiver that may write. It does not wait for a stuck
// transport.
func (m *boxMachine) receiver(f func() error) error {
	return unless(m.valve.isShut(1-m.from), f)
}

// shutBox closes the outbox.
func (m *boxMachine) shutBox() {
	if m.close == nil {
		m.closing = m.box.Stats().Dropped
		for _, c := range m.puts {
			if c.running() {
				m.crossing++
			}
		}
	}
	begin(&m.close, func(ctx context.Context, c *call) {
		c.err = m.box.Close(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.closed = c.err
	})
}

// done reports whether the sender can send nothing more.
func (m *boxMachine) done() bool {
	select {
	case <-m.out.Done():
		return true
	default:
		return false
	}
}

func (m *boxMachine) check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkOrder(); err != nil {
		return err
	}
	if err := m.checkCounts(); err != nil {
		return err
	}
	return m.checkWaits()
}

// checkOrder: each producer's elements in their order, none twice, none that was not taken. A
// policy that drops nothing leaves no gap.
func (m *boxMachine) checkOrder() error {
	var seen [slots]int
	for i, n := range m.got {
		slot := int(n>>32) - 1
		at := slices.Index(m.accepted[slot][seen[slot]:], n)
		if at < 0 {
			return fmt.Errorf("element %d: got %#x, want a later one of those that were taken: %x", i+1, n, m.accepted)
		}
		if at > 0 && (m.policy == streamcredit.Block || m.policy == streamcredit.Fail) {
			return fmt.Errorf("element %d: got %#x, want %#x, since the policy drops none", i+1, n, m.accepted[slot][seen[slot]])
		}
		seen[slot] += at + 1
		if m.large[n] {
			return fmt.Errorf("element %d: got one that is too large", i+1)
		}
	}
	return nil
}

// flight returns how many elements have left the outbox and are neither sent nor dropped.
func (m *boxMachine) flight() int {
	s := m.box.Stats()
	return m.taken + m.full - int(m.out.Stats().Sent) - int(s.Dropped) - s.Queued
}

func (m *boxMachine) checkCounts() error {
	s, out := m.box.Stats(), m.out.Stats()
	if int(s.Put) != m.taken-m.droppedNew(s) {
		return fmt.Errorf("put: got %+v, want %d", s, m.taken)
	}
	if got := m.meter.Stats().Dropped; got != s.Dropped {
		return fmt.Errorf("dropped, says the meter: got %d, want %d", got, s.Dropped)
	}
	if s.Queued > m.size {
		return fmt.Errorf("queued: got %d, want at most %d", s.Queued, m.size)
	}
	// An element leaves the outbox when there is credit for it, which a drain may take back.
	if f := m.flight(); f < 0 || f > 1 || f == 1 && !m.valve.isShut(m.from) && (out.Waiting == 0 || m.drained == nil && m.budget == nil) {
		return fmt.Errorf("taken %d, refused %d, sent %d, %+v: got %d in flight", m.taken, m.full, out.Sent, s, f)
	}
	if s.Queued > 0 && m.out.Credit() > 0 && !m.valve.isShut(m.from) && !m.stopped && !m.done() && !m.failed() {
		return fmt.Errorf("queued with a credit of %d: got %d, want none", m.out.Credit(), s.Queued)
	}
	if m.policy == streamcredit.Block && s.Dropped > 0 && !m.over() {
		return fmt.Errorf("dropped: got %d, want none", s.Dropped)
	}
	return nil
}

// droppedNew returns how many elements DropNewest has dropped, which do not count as put.
func (m *boxMachine) droppedNew(s streamcredit.OutboxStats) int {
	if m.policy == streamcredit.DropNewest {
		return m.taken - int(s.Put)
	}
	return 0
}

// failed reports whether an element that is too large has ended the outbox.
func (m *boxMachine) failed() bool {
	if m.policy != streamcredit.Block && m.policy != streamcredit.Fail {
		return false
	}
	for _, by := range m.accepted {
		if slices.ContainsFunc(by, func(n int64) bool { return m.large[n] }) {
			return true
		}
	}
	return false
}

// over reports whether something has happened that ends the outbox.
func (m *boxMachine) over() bool {
	return m.done() || m.stopped || m.failed() || m.close != nil
}

// checkWaits: a call that waits has a reason to.
func (m *boxMachine) checkWaits() error {
	s, stuck := m.box.Stats(), m.valve.isShut(m.from)
	for _, c := range m.puts {
		if !c.running() {
			if c != nil && c.err != nil && !c.stopped && !errors.Is(c.err, streamcredit.ErrOutboxFull) && !m.over() {
				return fmt.Errorf("Put: got %w, want no error", c.err)
			}
			continue
		}
		switch {
		case m.policy != streamcredit.Block || s.Queued < m.size || c.stopped:
			return fmt.Errorf("a Put waits with %+v, want it to return", s)
		case m.close != nil || m.done() || m.stopped && !stuck || m.failed() && !stuck && m.flight() == 0 && m.out.Credit() > 0:
			return fmt.Errorf("a Put waits with %+v at the end, want it to return", s)
		}
	}
	if c := m.close; c.running() && !stuck && (c.stopped || m.done() || m.stopped || s.Queued == 0 && m.flight() == 0) {
		return fmt.Errorf("Close waits with %+v, want it to return", s)
	}
	if c := m.close; c != nil && !c.running() && (s.Queued > 0 || !stuck && !m.done()) {
		return fmt.Errorf("after Close: got %+v, and the sender has ended %t", s, m.done())
	}
	if m.recv.running() && !m.valve.isShut(1-m.from) && (m.recv.stopped || m.in.Stats().Buffered > 0) {
		return fmt.Errorf("a Recv waits, with %+v; want it to return", m.in.Stats())
	}
	if m.drained.running() && !stuck && !m.valve.isShut(1-m.from) {
		return fmt.Errorf("a Drain waits, with %+v; want it to return", m.in.Stats())
	}
	return nil
}

// settle ends what has not ended, takes all that there is, and looks for what is lost.
func (m *boxMachine) settle() error {
	m.valve.openBoth()
	if m.close.running() && m.close.stopped {
		time.Sleep(5 * time.Second)
		if m.close.running() {
			return errors.New("Close waits 5 s after the end of its context, want it to return")
		}
	}
	m.shutBox() // if it has not been
	letGo(m.recv)
	synctest.Wait()
	if err := m.check(); err != nil {
		return err
	}
	if !m.broken {
		if err := m.exhaust(); err != nil {
			return err
		}
	}
	synctest.Wait()
	m.ends.end()
	if m.from == serverEnd {
		_ = m.in.Close() // a client's receiver must be closed
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if m.close.running() {
		return fmt.Errorf("Close waits with %+v after the end of the stream, want it to return", m.box.Stats())
	}
	for i, c := range m.puts {
		if c.running() {
			return fmt.Errorf("Put of producer %d waits at the end, want it to return", i)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.box.Stats(); m.flight() != 0 || s.Queued != 0 {
		return fmt.Errorf("taken %d, refused %d, sent %d, %+v: got %d in flight at the end", m.taken, m.full, m.out.Stats().Sent, s, m.flight())
	}
	return wantNothingTaken(m.budget)
}

// exhaust takes all elements, and looks at the end.
func (m *boxMachine) exhaust() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if m.manual {
		_ = m.in.Request(math.MaxInt64)
	}
	if err := m.tape.exhaust(ctx, m.in, m.explicit, m.canceled); err != nil {
		return err
	}
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkOrder(); err != nil {
		return err
	}
	if m.canceled {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("Recv: waits with %+v, %+v and %+v", m.in.Stats(), m.out.Stats(), m.box.Stats())
	}
	if got := uint64(len(m.got)); got != m.out.Stats().Sent {
		return fmt.Errorf("received: got %d, want the %d that were sent", got, m.out.Stats().Sent)
	}
	return m.checkEnd()
}

// checkEnd compares what the receiver was told with what became of the elements.
func (m *boxMachine) checkEnd() error {
	if m.ended {
		return nil
	}
	lost := int(m.box.Stats().Dropped - m.closing)
	if m.policy != streamcredit.Block {
		lost = max(0, lost-m.crossing)
	}
	for _, by := range m.accepted {
		for _, n := range by {
			if m.large[n] {
				lost = max(lost, 1) - 1 // the peer takes none of these
			}
		}
	}
	switch {
	case errors.Is(m.last, io.EOF):
		if lost > 0 || m.failed() {
			return fmt.Errorf("Close: got %w, and the receiver a proper end, with %d elements lost", m.closed, lost)
		}
		if m.closed != nil && !m.close.stopped && !m.stopped {
			return fmt.Errorf("Close: got %w, want no error after a proper end", m.closed)
		}
	case errors.Is(m.last, streamcredit.ErrGoingAway):
		if !errors.Is(m.closed, context.Canceled) {
			return fmt.Errorf("Close: got %w, and the receiver %w", m.closed, m.last)
		}
	case m.failed():
		if status.Code(m.last) != codes.ResourceExhausted || !errors.Is(m.closed, streamcredit.ErrTooLarge) {
			return fmt.Errorf("Close: got %w, and the receiver %w, want both to say too large", m.closed, m.last)
		}
	default:
		return fmt.Errorf("the receiver's end: got %w, with Close %w", m.last, m.closed)
	}
	return nil
}

// release ends everything that a failed script has left.
func (m *boxMachine) release() {
	m.valve.openBoth()
	m.stop()
	letGo(append(m.puts[:], m.recv, m.close, m.drained)...)
	m.ends.end()
	synctest.Wait()
}

// Puts, demand, a stuck transport and all ends in any order: an outbox loses nothing but the
// elements that it counts, each end is told so, and no call waits for ever.
func TestAnOutboxIsItsModel(t *testing.T) {
	how := rapid.Custom(func(t *rapid.T) boxSetting {
		return boxSetting{
			Kind: rapid.Byte().Draw(t, "kind"), Policy: rapid.Byte().Draw(t, "policy"),
			Capacity: rapid.Byte().Draw(t, "capacity"), Pace: rapid.Byte().Draw(t, "pace"),
		}
	})
	checkScripts(t, how, moves(boxKinds), 60, playBox)
}
