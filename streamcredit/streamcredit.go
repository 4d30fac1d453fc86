package streamcredit

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/internal/stall"
)

// A Stream has the methods that grpc.BidiStreamingServer and grpc.BidiStreamingClient share. It
// sends *Out and receives *In.
type Stream[Out, In any] interface {
	// Send, Recv and Context are methods of gRPC.
	Send(m *Out) error
	Recv() (*In, error)
	Context() context.Context
}

// A ClientStream is the client's end of a stream, such as a grpc.BidiStreamingClient.
type ClientStream[Out, In any] interface {
	Stream[Out, In]
	// CloseSend is a method of gRPC.
	CloseSend() error
}

// ServeSend makes a handler the sender of its stream. It waits for the client's Open, at most for
// the handshake timeout ([WithHandshakeTimeout]), and answers it. It returns the element that
// came with the Open ([WithSetup]), or nil if there was none. The handler should return an error
// of ServeSend as its own. It must end the stream with Finish, Close or an error. No other code
// may use the stream.
func ServeSend[Out, In any](stream Stream[Out, In], opts ...SendOption) (*Sender[*Out], *In, error) {
	s, err := serveEmbedded(stream, role{server: true, sends: true}, opts)
	if err != nil {
		return nil, nil, err
	}
	return &Sender[*Out]{s}, s.setup, nil
}

// ServeReceive makes a handler the receiver of its stream. Otherwise it is like
// [ServeSend].
func ServeReceive[Out, In any](stream Stream[Out, In], opts ...ReceiveOption) (*Receiver[*In], *In, error) {
	s, err := serveEmbedded(stream, role{server: true, receives: true}, opts)
	if err != nil {
		return nil, nil, err
	}
	return &Receiver[*In]{s}, s.setup, nil
}

// Serve makes a handler sender and receiver of its stream. Otherwise it is like
// [ServeSend].
func Serve[Out, In any](stream Stream[Out, In], opts ...DuplexOption) (*Duplex[*Out, *In], *In, error) {
	s, err := serveEmbedded(stream, role{server: true, sends: true, receives: true}, opts)
	if err != nil {
		return nil, nil, err
	}
	return newDuplex(s), s.setup, nil
}

// DialSend opens a stream as its sender. open is the method of a generated client, such as
// client.Upload. DialSend calls it with the options of [WithCallOptions]. DialSend does not wait
// for the server. If the server refuses the call, the first Send returns its error. The call ends
// when ctx ends, and when Finish has returned.
func DialSend[Out, In, CallOption any, S ClientStream[Out, In]](
	ctx context.Context, open func(context.Context, ...CallOption) (S, error), opts ...SendOption,
) (*Sender[*Out], error) {
	s, err := dialEmbedded(ctx, open, role{sends: true}, opts)
	if err != nil {
		return nil, err
	}
	return &Sender[*Out]{s}, nil
}

// DialReceive opens a stream as its receiver. The call ends when ctx does, or with
// Close. Otherwise it is like [DialSend].
func DialReceive[Out, In, CallOption any, S ClientStream[Out, In]](
	ctx context.Context, open func(context.Context, ...CallOption) (S, error), opts ...ReceiveOption,
) (*Receiver[*In], error) {
	s, err := dialEmbedded(ctx, open, role{receives: true}, opts)
	if err != nil {
		return nil, err
	}
	return &Receiver[*In]{s}, nil
}

// Dial opens a stream as its sender and receiver. The call ends when ctx does, or with
// Close. Otherwise it is like [DialSend].
func Dial[Out, In, CallOption any, S ClientStream[Out, In]](
	ctx context.Context, open func(context.Context, ...CallOption) (S, error), opts ...DuplexOption,
) (*Duplex[*Out, *In], error) {
	s, err := dialEmbedded(ctx, open, role{sends: true, receives: true}, opts)
	if err != nil {
		return nil, err
	}
	return newDuplex(s), nil
}

func serveEmbedded[Out, In any, P DuplexOption](stream Stream[Out, In], r role, opts []P) (*session[*Out, *In], error) {
	c, err := newConfig(r, opts)
	if err != nil {
		return nil, err
	}
	w, err := newEmbedded(stream)
	if err != nil {
		return nil, err
	}
	if stream == nil {
		return nil, errNoStream
	}
	return serve(stream.Context(), w, headerOf(stream), c)
}

var errNoStream = invalid("stream: got none, want that of a handler")

// headerOf returns a function that sets a response header on a server's stream, or nil if it
// cannot.
func headerOf(stream any) func(metadata.MD) error {
	if h, ok := stream.(interface{ SetHeader(md metadata.MD) error }); ok {
		return h.SetHeader
	}
	return nil
}

// serve begins a session on a server.
func serve[O, I any](ctx context.Context, w wire[O, I], setHeader func(metadata.MD) error, c *config) (*session[O, I], error) {
	s := newSession(ctx, w, nil, c)
	s.w.stuck.end = stall.EndOf(ctx)
	if s.trailer = trailerSetterOf(w.call()); s.in != nil && s.trailer != nil {
		s.in.lapse = s.lapse
	}
	if err := s.join(); err != nil {
		close(s.done) // there is no read loop
		s.fail(err)
		return nil, err
	}
	_ = s.w.lockUntil(ctx) // does not wait, since nothing is written before Open
	go s.loop()            // ends with the stream, which the handler's return ends
	if err := s.awaitOpen(); err != nil {
		s.w.unlock()
		s.fail(err)
		return nil, err
	}
	if err := s.answer(setHeader); err != nil {
		s.w.unlock()
		err = s.reasonFor(err)
		s.fail(err)
		return nil, err
	}
	s.w.opened()
	if s.out != nil && s.w.mayWrite(frameTerminal) && c.firstRequest > 0 {
		s.awaitDemand()
	}
	return s, nil
}

// awaitOpen waits for the client's Open.
func (s *session[O, I]) awaitOpen() error {
	timeout := time.NewTimer(s.cfg.handshake)
	defer timeout.Stop()
	select {
	case <-s.opened:
		return nil
	case <-s.done:
		select {
		case <-s.opened: // Open is answered, even if the stream has ended since
			return nil
		default:
			return s.cause()
		}
	case <-timeout.C:
		return s.lateOpen()
	}
}

func (s *session[O, I]) lateOpen() error {
	return violation(HandshakeTimeout, "Open within "+s.cfg.handshake.String(), "none")
}

// answer writes the server's Open. The caller holds s.w.
func (s *session[O, I]) answer(setHeader func(metadata.MD) error) error {
	if !s.w.mayWrite(frameOpen) {
		return nil
	}
	if setHeader != nil {
		_ = setHeader(metadata.Pairs(header, strconv.Itoa(version))) // fails after an interceptor has sent headers; Open has it, too
	}
	if err := s.w.writeOpenLocked(s.hello(), nil); err != nil {
		return err
	}
	return s.wire.flush(s.ctx) // the handler may return at once
}

// awaitDemand ends the session if the peer asks for nothing for too long.
func (s *session[O, I]) awaitDemand() {
	s.after(s.cfg.firstRequest, func() {
		if !s.out.asked() {
			s.fail(violation(FirstRequestTimeout, "a Request within "+s.cfg.firstRequest.String(), "none"))
		}
	})
}

func dialEmbedded[Out, In, CallOption any, S ClientStream[Out, In], P DuplexOption](
	ctx context.Context, open func(context.Context, ...CallOption) (S, error), r role, opts []P,
) (*session[*Out, *In], error) {
	c, err := newConfig(r, opts)
	if err != nil {
		return nil, err
	}
	w, err := newEmbedded[Out, In](nil) // before the call, so that none is made for a stream that cannot work
	if err != nil {
		return nil, err
	}
	return dial(ctx, open, c, w, func(stream S) { w.stream, w.closeSend = stream, stream.CloseSend })
}

// dial begins a session on a client.
func dial[O, I, CallOption any, S any](
	ctx context.Context, open func(context.Context, ...CallOption) (S, error), c *config, w wire[O, I], carry func(S),
) (*session[O, I], error) {
	setup, err := setupOf(w, c)
	if err != nil {
		return nil, err
	}
	opts, err := callOptions[CallOption](c)
	if err != nil {
		return nil, err
	}
	if open == nil {
		return nil, invalid("open: got no method, want that of a generated client")
	}
	ctx, cancel := context.WithCancel(ctx)
	begun := false
	defer func() {
		if !begun { // also if open panics
			cancel()
		}
	}()
	stream, err := open(ctx, opts...)
	if err != nil {
		return nil, err
	}
	carry(stream)
	s := newSession(ctx, w, cancel, c)
	begun = true           // from here on the session ends the call
	_ = s.w.lockUntil(ctx) // does not wait, since nothing is written before Open
	if err := s.join(); err != nil {
		close(s.done) // there is no read loop
		s.w.unlock()
		s.fail(err)
		return nil, err
	}
	if err := s.writeOpenLocked(setup); err != nil {
		s.w.lostLocked(err)
	}
	s.after(c.handshake, func() {
		select {
		case <-s.opened:
		default:
			s.fail(s.lateOpen())
		}
	})
	if s.out != nil && c.firstRequest > 0 {
		s.awaitDemand()
	}
	go s.loop() // ends with the call, which Close and Finish wait for
	s.w.opened()
	return s, nil
}

// writeOpenLocked writes a client's Open. If that panics, there is no read loop yet, so it releases
// the lock and ends the session.
func (s *session[O, I]) writeOpenLocked(setup *O) (err error) {
	returned := false
	defer func() {
		if !returned {
			close(s.done)
			s.w.release(&returned)
		}
	}()
	err = s.w.writeOpenLocked(s.hello(), setup)
	returned = true
	return err
}

// setupOf returns the client's setup element, or nil if there is none. It returns an error if the
// value is not an element of the stream.
func setupOf[O, I any](w wire[O, I], c *config) (*O, error) {
	if c.setup == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	e, err := w.setup(c.setup)
	if err != nil {
		return nil, err
	}
	return &e, w.check(e)
}

// callOptions returns the options of the call in the type that its method takes.
func callOptions[CallOption any](c *config) (opts []CallOption, err error) {
	for _, o := range c.call {
		opt, ok := any(o).(CallOption)
		if !ok {
			return nil, invalid("open: got a method with other options than grpc's, want one that takes %T", o)
		}
		opts = append(opts, opt)
	}
	return opts, nil
}

// join opens the receiver's account of the budget. Functions that the budget calls must not wait
// for this stream's transport, since other streams share the budget.
func (s *session[O, I]) join() (err error) {
	if s.in == nil || s.cfg.budget == nil {
		return nil
	}
	a, err := s.cfg.budget.open(s.in.retry(s.w.writeSoon), s.in.reclaim(s.w.writeSoon))
	if err == nil {
		s.in.join(a)
	}
	return err
}
