package streamcredit

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// A session is one end of one stream. It has a read loop, a writer, and a ledger for each
// direction that carries elements.
//
// The read loop is the only goroutine that reads. It waits for the transport and never for
// credit. It waits for the application only while the buffer of a receiver with unbounded demand
// is full. It never writes, since two peers with read loops that write could wait for each other.
// It leaves control for the peer in the writer's pending.
type session[O, I any] struct {
	wire  wire[O, I]
	ctx   context.Context
	abort context.CancelFunc // ends the RPC; nil on a server
	role  role
	cfg   *config

	w   *writer[O]
	out *outgoing    // nil if this end does not send
	in  *incoming[I] // nil if this end does not receive

	trailer func(metadata.MD) // sets a trailer of a server; nil if it has none
	lapsed  atomic.Bool       // the client was told that more may be consumed than was reported

	// The fields of the handshake are set before opened is closed.
	opened       chan struct{} // closed when the peer's Open has arrived
	started      bool          // the peer's first message has arrived; of the read loop
	drains       bool          // the peer knows FEATURE_DRAIN
	pulse        bool          // both ends know heartbeats
	peerReceives bool          // the peer's Open has will_receive
	setup        I             // the element that came with the client's Open
	hasSetup     bool

	flood    bucket        // the peer's control messages; of the read loop
	read     atomic.Uint64 // messages that have arrived
	next     atomic.Int64  // size of the element that the peer has announced, or 0
	controls atomic.Uint64 // control messages that have arrived, for the meter
	began    time.Time     // for the meter

	mu      sync.Mutex // guards the fields below
	life    life
	err     error // why the session is over
	timers  []*time.Timer
	helpers sync.WaitGroup // goroutines that write or call hooks

	done   chan struct{} // closed when the read loop has ended
	broken atomic.Bool   // the stream ended while the handler ran, for an unreadable message or by guard

	notifying atomic.Bool // a goroutine calls the hook for consumed elements
	told      uint64      // its last argument; of that goroutine
}

// A life is the state of a session. It goes forward only.
type life uint8

const (
	living   life = iota // the call goes on, as far as this end knows
	returned             // the call has ended with OK, as a client sees it
	failed               // the call has ended otherwise, or this end has ended it
	alone                // over, and no goroutine starts any more
)

// String returns the name of the state as it stands in DESIGN.md.
func (l life) String() string {
	return [...]string{"Living", "Returned", "Failed", "Alone"}[l]
}

// errPeace is the error of a session that has returned.
var errPeace = &canceled{reason: "the server has ended the call"}

func newSession[O, I any](ctx context.Context, wr wire[O, I], abort context.CancelFunc, c *config) *session[O, I] {
	s := &session[O, I]{
		wire: wr, ctx: ctx, abort: abort, role: c.role, cfg: c,
		opened: make(chan struct{}), done: make(chan struct{}), flood: newBucket(floodBurst),
	}
	if s.role.sends {
		s.out = newOutgoing(c)
	}
	s.w = newWriter(ctx, wr, s.out, s, c.meter != nil)
	if s.role.receives {
		s.in = newIncoming(c, &s.w.pending, wr.sizeIn)
		s.in.report, s.in.gone = s.w.writeSoon, ctx.Done()
	}
	if c.meter != nil {
		s.began = time.Now()
		c.meter.join(s)
	}
	wr.bind(s.fail, s.w.writeSoon)
	context.AfterFunc(ctx, s.left)
	return s
}

// elements returns the number of elements that have passed, in both directions.
func (s *session[O, I]) elements() (n uint64) {
	if s.out != nil {
		n += s.out.sent()
	}
	if s.in != nil {
		n += s.in.received()
	}
	return n
}

// settle makes a client half-close once it has nothing more to write.
func (s *session[O, I]) settle() {
	if !s.role.server && s.cause() == nil && (s.out == nil || !s.out.state().Terminates()) && (s.in == nil || s.in.spent()) {
		s.w.pending.halfClose()
	}
}

// fail ends the session with err. The first end wins.
func (s *session[O, I]) fail(err error) { s.over(failed, err) }

// over enters the state to. The first end wins.
func (s *session[O, I]) over(to life, err error) {
	s.mu.Lock()
	first := s.life == living
	if first {
		s.life, s.err = to, err
	}
	timers := s.timers
	s.timers = nil
	s.mu.Unlock()
	s.w.stop()
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
		s.abort() // first, because a half-close by a goroutine that wakes up now would look like Complete
	}
	if s.out != nil {
		end := ledger.OutFail
		if to == returned {
			end = ledger.OutReturn
		}
		s.out.end(end, err)
	}
	if s.in != nil {
		s.in.fail(err)
	}
	s.w.guard(err, func() { s.broken.Store(true) }) // the handler may still receive the elements that have arrived
}

// cause returns why the session is over, and nil while it lives.
func (s *session[O, I]) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// failure returns why the session has failed, and nil if it lives or the call ended with OK.
func (s *session[O, I]) failure() error {
	if err := s.cause(); err != errPeace { //nolint:errorlint // this very one
		return err
	}
	return nil
}

// because returns err. If err only says that ctx has ended with the stream, because returns the
// cause of the stream's end instead.
func (s *session[O, I]) because(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, ctx.Err()) && s.outlived(ctx) {
		return s.cause()
	}
	return err
}

// outlived reports whether ctx has ended only because a message could not be read. gRPC then ends
// a server's stream, although its handler has not seen the elements that came before the message.
func (s *session[O, I]) outlived(ctx context.Context) bool {
	if !s.role.server || ctx.Err() == nil || s.ctx.Err() == nil {
		return false
	}
	s.awaitLoop()
	return s.broken.Load()
}

// reasonFor returns why a write failed with err. On a client gRPC returns io.EOF if the stream is
// over, and the read loop learns the cause. After any other error, control that the peer waits
// for is lost, so the session is over, too.
func (s *session[O, I]) reasonFor(err error) error {
	if !s.role.server {
		if !isEOF(err) {
			s.fail(err)
		}
		<-s.done
	}
	if cause := s.cause(); cause != nil {
		return cause
	}
	return err
}

// left runs when the stream's context ends. On a server the handler has returned then. On a
// client the call has ended.
func (s *session[O, I]) left() {
	s.awaitLoop() // the read loop knows the cause, and gRPC hands over the messages that it has
	s.fail(contextError(s.ctx.Err()))
	s.w.unguard()
	<-s.done
	if s.cfg.meter != nil {
		s.cfg.meter.leave(s)
	}
	if s.role.server && s.in != nil { // the handler has returned, the client has gone, or a message could not be read
		s.in.abandon(!s.broken.Load(), cmp.Or(s.failure(), ErrClosed))
	}
}

// awaitLoop waits for the read loop after the stream's context has ended.
func (s *session[O, I]) awaitLoop() {
	patience := time.NewTimer(closeGrace)
	defer patience.Stop()
	select {
	case <-s.done:
	case <-patience.C:
	}
}

// after calls f once, d from now, if the session is not over by then.
func (s *session[O, I]) after(d time.Duration, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.afterLocked(d, f)
}

func (s *session[O, I]) afterLocked(d time.Duration, f func()) *time.Timer {
	if s.life != living {
		return nil
	}
	t := time.AfterFunc(d, f)
	s.timers = append(s.timers, t)
	return t
}

// help runs f in a goroutine that await waits for. It does not run f once await has begun.
func (s *session[O, I]) help(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != alone {
		s.helpers.Go(func() {
			defer s.survive()
			f()
		})
	}
}

// await waits for all goroutines of a client's session, which is over. Nothing waits for the read
// loop of a server's session. It ends with the stream, when the handler has returned.
func (s *session[O, I]) await() {
	<-s.done
	s.mu.Lock()
	s.life = alone
	s.mu.Unlock()
	s.helpers.Wait()
	s.wire.join() // a write that waits fails now
}
