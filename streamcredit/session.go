package streamcredit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/stall"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// A wire carries control and elements on a gRPC stream. O and I are the types of the
// elements that go out and come in. Reading and writing may go on at once; each by
// one goroutine at a time.
type wire[O, I any] interface {
	writer[O]
	carrier
	reader[I]
}

type writer[O any] interface {
	// control writes c alone.
	control(c *creditpb.Control) error
	// element writes e, with c on it if c is not nil.
	element(e O, c *creditpb.Control) error
	// half half-closes a client's stream. Nothing is written after it.
	half() error
	// flush waits until what was written is in the transport's hands.
	flush(ctx context.Context) error
	// check returns why e cannot be an element.
	check(e O) error
	// setup returns m as an element.
	setup(m any) (O, error)
	sizeOut(e O) int
}

// A carrier is the part of a wire that may write from a goroutine of its own.
type carrier interface {
	// batch allows it to put several elements into one message, which the receiver takes
	// up to the size of its largest element; 0: it has not said.
	batch(largest int64)
	// warns tells it that the client knows unfinishedTrailer: FEATURE_UNFINISHED.
	warns()
	// bind tells it whom to tell of a failed write that its caller cannot be told of, and
	// that it is not crowded any more.
	bind(broke func(error), eased func())
	// carried reports whether a goroutine of the wire is writing, and how many messages
	// such goroutines have written.
	carried() (writing bool, messages uint64)
	// crowded reports whether much control waits for the transport already: more had
	// better add up in pending.
	crowded() bool
}

type reader[I any] interface {
	// read returns the next message, its elements appended to into.
	read(into []I) (*creditpb.Control, []I, error)
	// call returns the gRPC stream.
	call() any
	sizeIn(e I) int
}

// A session is one end of one stream: a read loop, a write lock and a ledger for each
// direction in which there are elements.
//
// The read loop is the only goroutine that reads. It waits for nothing but the
// transport: neither for the application nor for credit, and it never writes, since a
// peer whose read loop wrote as well could wait for this one. What it has to say it
// leaves in pending, and write sees to it.
//
// Whoever holds the write lock writes pending control first. Whoever leaves some and
// does not get the lock can go: the holder looks again after it has let go.
type session[O, I any] struct {
	wire  wire[O, I]
	ctx   context.Context
	abort context.CancelFunc // ends the RPC; nil on a server
	role  role
	cfg   *config

	out *outgoing    // nil: this end does not send
	in  *incoming[I] // nil: this end does not receive

	trailer func(metadata.MD)          // of a server; nil: it has none
	end     func(*status.Status) error // ends a server's stream with a status; nil: only its handler can
	lapsed  atomic.Bool                // the client was told that more may be consumed than was reported

	pending pending
	w       *lock
	halved  bool // under w
	quiet   bool // the peer knows nothing of the protocol; set before opened is closed

	opened  chan struct{} // closed when the peer's Open is in
	drains  bool
	pulse   bool // heartbeats are known to both
	started bool

	peerReceives bool // its Open says so

	setup    I // what came with the client's Open
	hasSetup bool

	flood   bucket        // the peer's
	mine    bucket        // of this end, as the peer counts, but for a margin; under w
	read    atomic.Uint64 // messages that came
	wrote   atomic.Uint64 // messages that went
	began   time.Time
	wroteAt atomic.Int64 // when the last one went, since began, where the peer listens for heartbeats; else 0
	large   atomic.Int64 // the size in bytes from which on an element is announced there; else 0
	next    atomic.Int64 // the size of the element that the peer has announced; 0: none

	mu     sync.Mutex // guards what follows
	err    error      // why the session is over; io.EOF: in peace
	timers []*time.Timer
	soon   *time.Timer // has pending control written; nil: not yet used
	set    bool        // it is

	helpers sync.WaitGroup // goroutines that write or call hooks
	alone   bool           // under mu: no more of them
	writing atomic.Bool    // one that writes is about to
	done    chan struct{}  // closed when the read loop has ended
	stuck   stall.Watch    // looks after the writes of a server's session that has failed
	broken  atomic.Bool    // the stream was ended for a message that could not be read, or by guard, while the handler ran

	notifying atomic.Bool // a goroutine calls the hook
	told      uint64      // its last argument; that goroutine's

	controls control // counts, for the meter
	sent     sent    // likewise, of what was written
}

func newSession[O, I any](ctx context.Context, wr wire[O, I], abort context.CancelFunc, c *config) *session[O, I] {
	r := c.role
	s := &session[O, I]{
		wire: wr, ctx: ctx, abort: abort, role: r, cfg: c,
		began: time.Now().Add(-1), w: newLock(), opened: make(chan struct{}), done: make(chan struct{}),
		flood: newBucket(floodBurst), mine: newBucket(floodBurst / 2),
	}
	if r.sends {
		s.out = newOutgoing(c)
	}
	if r.receives {
		s.in = newIncoming(c, &s.pending, wr.sizeIn)
		s.in.report, s.in.gone = s.flush, ctx.Done()
	}
	if c.meter != nil {
		c.meter.join(s)
	}
	wr.bind(s.fail, s.write)
	context.AfterFunc(ctx, s.left)
	return s
}

// loop is the read loop.
func (s *session[O, I]) loop() {
	defer close(s.done)
	var scratch [1]I
	for {
		c, elements, err := s.wire.read(scratch[:0])
		if err == nil {
			s.read.Add(1)
			s.next.Store(0)
			err = s.take(c, elements)
		}
		clear(elements) // the buffer is the only one to hold them
		if err != nil {
			s.over(err)
			return
		}
	}
}

// take acts on one message: control first, then elements.
func (s *session[O, I]) take(c *creditpb.Control, elements []I) error {
	if !s.started {
		s.started = true
		return s.open(c, elements)
	}
	if c != nil || len(elements) == 0 {
		if err := s.steer(c, len(elements) > 0); err != nil {
			return err
		}
	}
	if len(elements) == 0 {
		return nil
	}
	if s.in == nil {
		return violation(UnexpectedFrame, "no elements: Open did not say will_receive", "an element")
	}
	if v := s.in.push(elements); v != nil {
		return v
	}
	s.write() // demand that had waited for room
	return nil
}

// steer acts on control. What rides on an element is free for the flood rule, as the
// element has paid for it.
func (s *session[O, I]) steer(c *creditpb.Control, riding bool) error {
	if !riding && !s.flood.spend(s.elements) {
		return violation(ControlFlood,
			fmt.Sprintf("at most %d at once, and then one for each element and %d a second", floodBurst, floodRate),
			"more control messages")
	}
	s.controls.in.Add(1)
	if v := s.dispatch(c); v != nil {
		return v
	}
	return nil
}

func (s *session[O, I]) dispatch(c *creditpb.Control) *ProtocolError {
	switch k := c.GetKind().(type) {
	case *creditpb.Control_Request:
		return s.request(k.Request, false)
	case *creditpb.Control_Cancel:
		if s.out == nil {
			return violation(UnexpectedFrame, "none: Open did not say will_send", "Cancel")
		}
		s.out.end(ledger.OutCancel, &canceled{reason: clip(k.Cancel.GetReason())})
		s.settle()
		s.write()
	case *creditpb.Control_Complete:
		end := io.EOF
		if k.Complete.GetGoingAway() {
			end = ErrGoingAway
		}
		return s.finish(end, k.Complete.GetTotal())
	case *creditpb.Control_Error:
		return s.finish(remoteError(k.Error), k.Error.GetTotal())
	case *creditpb.Control_Drained:
		if s.in == nil {
			return violation(UnexpectedFrame, "none: Open did not say will_receive", "Drained")
		}
		v := s.in.drained(k.Drained)
		s.write()
		return v
	case *creditpb.Control_Heartbeat:
		if s.in != nil { // else no element can follow
			s.next.Store(min(max(0, k.Heartbeat.GetNextBytes()), math.MaxUint32)) // more than gRPC has
		}
		if k.Heartbeat.GetEcho() {
			s.pending.heartbeat(s.beat())
			s.write()
		}
	case *creditpb.Control_Open:
		return violation(UnexpectedFrame, "Open as the first message only", "a second Open")
	}
	return nil // of a kind that is not known
}

// clip keeps what a peer says for people from filling logs.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// request acts on demand. The first demand of a client is never too large: it does not know
// the bound yet.
func (s *session[O, I]) request(r *creditpb.Request, first bool) *ProtocolError {
	switch {
	case s.out == nil:
		return violation(UnexpectedFrame, "none: Open did not say will_send", "Request")
	case !s.peerReceives:
		return violation(UnexpectedFrame, "none: the peer's Open did not say will_receive", "Request")
	case r.GetN() < 0:
		return violation(InvalidDemand, "n of at least 1", "n %d", r.GetN())
	case r.GetN() == 0 && !r.GetDrain() && r.GetConsumed() == 0:
		return violation(InvalidDemand, "n of at least 1, drain or consumed", "none of them")
	case r.GetDrain() && !s.drains:
		return violation(UnexpectedFrame, "none: FEATURE_DRAIN is not used", "Request with drain")
	}
	clamped, v := s.out.demand(r)
	if v != nil {
		return v
	}
	if clamped && s.cfg.rejectCredit && (!first || !s.role.server) {
		return violation(DemandTooLarge, fmt.Sprintf("at most %d outstanding", s.cfg.maxCredit), "demand for %d more", r.GetN())
	}
	if r.GetDrain() {
		s.pending.oweDrained()
		s.write()
	}
	s.notifyConsumed(r.GetConsumed())
	return nil
}

// finish acts on the peer's terminal.
func (s *session[O, I]) finish(end error, total uint64) *ProtocolError {
	if s.in == nil {
		return violation(UnexpectedFrame, "none: Open did not say will_receive", "Complete or Error")
	}
	v := s.in.terminal(end, total)
	s.settle()
	s.write()
	if s.lapsed.Load() {
		s.help(s.assure)
	}
	return v
}

// doubtTrailer tells a client whether its server's handler, which has returned, may have
// consumed more than was reported. Its last value counts, unsure or sure. Absent means sure.
const doubtTrailer = "weir-credit-consumed"

// assure takes lapse back once the sender has ended. From then on the last report is written
// before the handler goes on.
func (s *session[O, I]) assure() {
	if s.w.lock(s.ctx) != nil {
		return
	}
	_, err := s.writeControl(true)
	if err == nil && !s.pending.waits.Load() && s.wire.flush(s.ctx) == nil {
		s.trailer(metadata.Pairs(doubtTrailer, "sure"))
	}
	s.w.unlock()
	s.flush()
}

// lapse tells the client that more elements may be consumed than were reported.
func (s *session[O, I]) lapse() {
	s.trailer(metadata.Pairs(doubtTrailer, "unsure"))
	s.lapsed.Store(true) // after the trailer: assure takes that back
}

// remoteError is what Recv returns for an Error.
func remoteError(e *creditpb.Error) error {
	code := codes.Code(e.GetCode())
	if code == codes.OK || code > codes.Unauthenticated {
		code = codes.Unknown
	}
	p := status.New(code, e.GetMessage()).Proto()
	p.Details = e.GetDetails()
	return status.FromProto(p).Err()
}

func (s *session[O, I]) elements() (n uint64) {
	if s.out != nil {
		n += s.out.sent()
	}
	if s.in != nil {
		n += s.in.received()
	}
	return n
}

// beat returns a Heartbeat with what this end knows.
func (s *session[O, I]) beat() *creditpb.Heartbeat {
	if s.out == nil {
		return &creditpb.Heartbeat{}
	}
	return s.out.beat()
}

// write has pending control written by another goroutine: for the read loop and for
// timers.
func (s *session[O, I]) write() {
	if !s.pending.waits.Load() || !s.writing.CompareAndSwap(false, true) {
		return
	}
	s.help(func() {
		s.writing.Store(false) // before it looks: what comes later starts another
		s.flush()
	})
}

// flush writes pending control, or leaves it to the holder of the write lock, to a wire that
// is crowded, or to a timer where more would be a flood.
func (s *session[O, I]) flush() {
	for s.pending.waits.Load() && !s.wire.crowded() && s.w.tryLock() {
		paced, err := s.writeControl(false)
		s.w.unlock()
		if err != nil {
			return // the read loop learns why
		}
		if paced {
			s.flushSoon()
			return
		}
	}
}

// writeControl writes pending control. It leaves some, which adds up, where the wire is
// crowded and, unless it is urgent, where the peer would take more for a flood: it is paced
// then. s.w is held.
func (s *session[O, I]) writeControl(urgent bool) (paced bool, err error) {
	for s.pending.waits.Load() && !s.wire.crowded() {
		if !urgent && !s.mine.fill(s.elements) {
			return true, nil
		}
		c, half := s.pending.take(s.out)
		switch {
		case s.quiet || s.halved: // nobody would read it
		case half:
			s.halved = true
			return false, s.wire.half()
		case c != nil:
			if err := s.put(c); err != nil {
				return false, err
			}
		}
		if c == nil {
			break
		}
	}
	return false, nil
}

// settle has a client half-close once it has nothing more to write.
func (s *session[O, I]) settle() {
	if !s.role.server && s.cause() == nil && (s.out == nil || !s.out.state().Terminates()) && (s.in == nil || s.in.spent()) {
		s.pending.halfClose()
	}
}

// flushSoon has pending control written in a moment: as often as the flood rule allows for.
func (s *session[O, I]) flushSoon() {
	const moment = time.Second / floodRate
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil || s.set:
		return
	case s.soon == nil:
		s.soon = s.afterLocked(moment, func() {
			s.mu.Lock()
			s.set = false
			s.mu.Unlock()
			s.write()
		})
	default:
		s.soon.Reset(moment)
	}
	s.set = true
}

// put writes c alone. s.w is held.
func (s *session[O, I]) put(c *creditpb.Control) error {
	s.mine.spend(s.elements)
	s.noteWrite()
	s.controls.out.Add(1)
	return s.wire.control(c)
}

// fail ends the session with err. The first wins.
func (s *session[O, I]) fail(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
	}
	timers := s.timers
	s.timers = nil
	s.mu.Unlock()
	for _, t := range timers {
		t.Stop()
	}
	if !first {
		return
	}
	if s.cfg.meter != nil {
		s.cfg.meter.failed(err)
	}
	if s.abort != nil {
		s.abort() // first: a half-close of what wakes up now would look like Complete
	}
	if s.out != nil {
		end := ledger.OutFail
		if err == errPeace { //nolint:errorlint // this very one
			end = ledger.OutReturn
		}
		s.out.end(end, err)
	}
	if s.in != nil {
		s.in.fail(err)
	}
	s.guard(err)
}

// over ends the session as the read loop has found it to end. A server's may go on
// sending after a client's half-close.
func (s *session[O, I]) over(err error) {
	switch {
	case !errors.Is(err, io.EOF):
		if !endsContext(status.Code(err)) {
			s.broken.Store(true)
		}
		s.fail(err)
	case !s.started:
		s.fail(violation(UnexpectedFrame, "Open", "the end of the stream"))
	default:
		if s.in != nil && s.in.why() == nil && !s.role.server && len(trailerOf(s.wire.call()).Get(unfinishedTrailer)) > 0 {
			s.fail(violation(CountMismatch, "Complete or Error after the elements", "the end of the call without it"))
		}
		if s.in != nil {
			s.in.halfClosed()
		}
		if !s.role.server {
			if s.out != nil && last(trailerOf(s.wire.call()).Get(doubtTrailer)) == "unsure" {
				s.out.doubt()
			}
			s.fail(errPeace)
		} else if s.out != nil {
			s.out.halfClosed()
		}
	}
}

// endsContext reports whether the read of a stream whose context has ended fails with code.
func endsContext(code codes.Code) bool {
	return code == codes.Canceled || code == codes.DeadlineExceeded
}

// outlived reports whether ctx has ended only because a message could not be read: gRPC ends
// a server's stream then, although its handler has not seen what came before.
func (s *session[O, I]) outlived(ctx context.Context) bool {
	if !s.role.server || ctx.Err() == nil || s.ctx.Err() == nil {
		return false
	}
	s.awaitLoop()
	return s.broken.Load()
}

// because returns err, or what ended the stream if err is only that ctx has ended with it.
func (s *session[O, I]) because(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, ctx.Err()) && s.outlived(ctx) {
		return s.cause()
	}
	return err
}

// awaitLoop waits for the read loop of a stream whose context has ended.
func (s *session[O, I]) awaitLoop() {
	patience := time.NewTimer(closeGrace)
	defer patience.Stop()
	select {
	case <-s.done:
	case <-patience.C:
	}
}

// errPeace is how a session ends whose call has ended with OK.
var errPeace = &canceled{reason: "the server has ended the call"}

// left runs when the stream's context ends: on a server when the handler has
// returned, on a client at the end of the call.
func (s *session[O, I]) left() {
	s.awaitLoop() // it knows better why, and gRPC hands over what it has
	s.fail(status.FromContextError(s.ctx.Err()).Err())
	s.unguard()
	<-s.done
	if s.cfg.meter != nil {
		s.cfg.meter.leave(s)
	}
	if s.role.server && s.in != nil { // the handler has returned, the client has gone, or a message could not be read
		s.in.abandon(!s.broken.Load())
	}
}

// after has f called once, d from now, if the session is not over by then.
func (s *session[O, I]) after(d time.Duration, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.afterLocked(d, f)
}

func (s *session[O, I]) afterLocked(d time.Duration, f func()) *time.Timer {
	if s.err != nil {
		return nil
	}
	t := time.AfterFunc(d, f)
	s.timers = append(s.timers, t)
	return t
}

// help runs f in a goroutine that await waits for; not at all once that has begun.
func (s *session[O, I]) help(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alone {
		s.helpers.Go(f)
	}
}

// await waits for all goroutines of a client's session, which is over. Nobody has a hold of
// the read loop of a server's: it ends with the stream, when the handler has returned.
func (s *session[O, I]) await() {
	<-s.done
	s.mu.Lock()
	s.alone = true
	s.mu.Unlock()
	s.helpers.Wait()
	_ = s.wire.flush(context.Background()) // what waits fails now
}

// notifyConsumed calls the hook, from a goroutine of its own.
func (s *session[O, I]) notifyConsumed(consumed uint64) {
	if s.cfg.onConsumed == nil || consumed == 0 || !s.notifying.CompareAndSwap(false, true) {
		return
	}
	s.help(func() {
		returned := false
		defer func() {
			if p := recover(); p != nil {
				s.fail(status.Errorf(codes.Internal, "streamcredit: the hook for consumed elements panicked: %v", p))
			} else if !returned {
				s.fail(status.Error(codes.Internal, "streamcredit: the hook for consumed elements called runtime.Goexit"))
			}
		}()
		for {
			now := s.out.stats().Consumed
			if now > s.told {
				s.told = now
				s.cfg.onConsumed(now)
				continue
			}
			s.notifying.Store(false)
			if s.out.stats().Consumed == now || !s.notifying.CompareAndSwap(false, true) {
				returned = true
				return
			}
		}
	})
}
