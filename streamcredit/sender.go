package streamcredit

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A Sender sends elements as they are asked for. Its methods are safe for concurrent
// use; the elements of one goroutine arrive in the order of its calls. The zero value
// is of no use: see [ServeSend], [DialSend] and their like.
type Sender[T any] struct{ s sending[T] }

// sending is what a session offers to its Sender.
type sending[T any] interface {
	send(ctx context.Context, e T) error
	try(e T) (bool, error)
	valid(e T) error
	terminate(ctx context.Context, terminal func(sent uint64) *creditpb.Control) error
	ready(ctx context.Context) error
	rest(ctx context.Context) error
	whyCanceled(ctx context.Context, err error) error
	because(ctx context.Context, err error) error
	ledger() *outgoing
	drop(n int)
}

// Send sends e as soon as the receiver has asked for it, and returns when e is in the
// transport's hands. It waits for demand, for the receiver's byte window and for the
// transport. The end of ctx ends the first two, and then e was not sent and no credit
// was used; a write that the transport does not take ends only with the stream: end
// its context. On a server a [*ProtocolError] ends the stream, too, that of a peer which
// misses its heartbeats ([WithHeartbeat]) among them. Afterwards e belongs to the receiver:
// do not change it. e may be sent on many streams.
//
// Errors: ErrCanceled, ErrClosed, ErrTooLarge, ErrInvalid (e is nil or not an element),
// the context's own, a [*ProtocolError], or the status with which the stream ended.
func (s *Sender[T]) Send(ctx context.Context, e T) error { return s.s.send(ctx, e) }

// TrySend sends e if it need not wait for demand nor for other goroutines that send,
// and reports whether it did. Only the transport can make it wait. Its errors are those
// of Send.
func (s *Sender[T]) TrySend(e T) (bool, error) { return s.s.try(e) }

// SendSeq sends what elements yields, no sooner than it is asked for: the next one is
// drawn when there is demand for it. It stops at the first error and returns it. It
// does not end the direction.
func (s *Sender[T]) SendSeq(ctx context.Context, elements iter.Seq[T]) error {
	next, stop := iter.Pull(elements)
	defer stop()
	for {
		if err := s.Ready(ctx); err != nil {
			return err
		}
		e, ok := next()
		if !ok {
			return nil
		}
		if err := s.Send(ctx, e); err != nil {
			return err
		}
	}
}

// Ready waits until there is demand, so that an element can be made only when it is
// wanted. Where several goroutines send, another may use it. Its errors are those of
// Send.
func (s *Sender[T]) Ready(ctx context.Context) error { return s.s.ready(ctx) }

// Credit returns how many elements may be sent now, math.MaxInt64 if demand is
// unbounded; none while the receiver's byte window is full. It does not block.
func (s *Sender[T]) Credit() int64 { return s.s.ledger().allowed() }

// Consumed returns how many elements the receiver has said it is done with: the first
// ones that were sent. It does not block. How soon a receiver says so is up to it; weir's
// does when it asks for more, and within 100 ms of having nothing more to do.
func (s *Sender[T]) Consumed() uint64 { return s.s.ledger().stats().Consumed }

// WaitConsumed waits until the receiver is done with the first n elements. It returns
// the context's error, or why the direction ended before.
func (s *Sender[T]) WaitConsumed(ctx context.Context, n uint64) error {
	return s.s.because(ctx, s.s.ledger().awaitConsumed(ctx, n))
}

// Done is closed when nothing more can be sent: the receiver has canceled, the stream
// has ended, or the direction was closed. A source that has nothing to send learns of
// it here.
func (s *Sender[T]) Done() <-chan struct{} { return s.s.ledger().done }

// Close says that all elements were sent. It needs no demand. It does not wait for the
// receiver, but for a Send that is writing. Closing twice is closing once. After it
// a handler may return.
func (s *Sender[T]) Close() error {
	return s.s.terminate(context.Background(), completed)
}

func completed(sent uint64) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{Total: sent}}}
}

// CloseGoingAway is Close where there would have been more: the receiver's Recv returns
// [ErrGoingAway] at the end, and it may go on elsewhere. For servers that stop.
func (s *Sender[T]) CloseGoingAway() error {
	return s.s.terminate(context.Background(), func(sent uint64) *creditpb.Control {
		return &creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{Total: sent, GoingAway: true}}}
	})
}

// CloseWithError says that the elements end early and why: the receiver's Recv returns
// the status of err, with its details, after what was sent. A client has no other way
// to say so; a server's handler may as well return err. Otherwise it is like Close.
func (s *Sender[T]) CloseWithError(err error) error {
	if err == nil {
		return s.Close()
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err) // as gRPC does with what a handler returns
	}
	p := st.Proto()
	p.Message = strings.ToValidUTF8(p.GetMessage(), "\uFFFD")
	return s.s.terminate(context.Background(), func(sent uint64) *creditpb.Control {
		return &creditpb.Control{Kind: &creditpb.Control_Error{Error: &creditpb.Error{
			Code: p.GetCode(), Message: p.GetMessage(), Details: p.GetDetails(), Total: sent,
		}}}
	})
}

// Finish is Close, and waits until the receiver is done with everything, or has left: on
// a server that is what a handler returns; on a client that only sends it waits for
// the handler to return, and returns its status. Receivers that do not report what they
// are done with are not waited for. It returns nil if the receiver took everything, the
// context's error, an [*UnconsumedError] if the receiver has ended the stream in order and
// left elements, or else what Send would have. The end of ctx does not end a write that
// the transport does not take.
func (s *Sender[T]) Finish(ctx context.Context) error {
	if err := s.s.terminate(ctx, completed); err != nil {
		if errors.Is(err, ErrCanceled) {
			return s.s.whyCanceled(ctx, err)
		}
		return err
	}
	return s.s.rest(ctx)
}

// SenderStats is the state of a Sender.
type SenderStats struct {
	Sent     uint64        // elements
	Bytes    int64         // their size together, if there is a meter or the receiver bounds sizes; else 0
	Consumed uint64        // elements that the receiver is done with, as far as it said
	Credit   int64         // elements that were asked for and may be sent, byte window aside; math.MaxInt64: unbounded
	Waiting  int           // Sends that wait for demand now
	Starved  time.Duration // time in which at least one did
}

// Stats returns the state of the sender. It does not block.
func (s *Sender[T]) Stats() SenderStats { return s.s.ledger().stats() }

func (s *session[O, I]) ledger() *outgoing { return s.out }

// drop counts elements that an outbox has dropped, which may be after the end.
func (s *session[O, I]) drop(n int) {
	if s.cfg.meter != nil {
		s.cfg.meter.dropped.Add(uint64(n))
	}
}

func (s *session[O, I]) send(ctx context.Context, e O) error {
	if err := ctx.Err(); err != nil {
		return s.because(ctx, err)
	}
	if err := s.wire.check(e); err != nil {
		return err
	}
	if s.w.tryLock() { // mostly there is credit
		if sent, err := s.putAndUnlock(e); sent || err != nil {
			return s.delivered(ctx, err)
		}
	}
	for {
		if err := s.ready(ctx); err != nil {
			return s.delivered(ctx, err)
		}
		if err := s.w.lock(ctx); err != nil {
			return s.because(ctx, err)
		}
		if sent, err := s.putAndUnlock(e); sent || err != nil {
			return s.delivered(ctx, err)
		}
	}
}

// valid returns why e cannot be an element of any stream.
func (s *session[O, I]) valid(e O) error { return s.wire.check(e) }

// ready waits for demand.
func (s *session[O, I]) ready(ctx context.Context) error {
	err := s.because(ctx, s.out.await(ctx, s.cfg.stall))
	if err != nil {
		s.starvedToo(err)
	}
	return err
}

// delivered returns err. If it is that the receiver wants no more, a handler is likely to
// return now, and so what was sent before is given to the transport first.
func (s *session[O, I]) delivered(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, ErrCanceled) {
		_ = s.wire.flush(ctx) // err is what matters
	}
	return err
}

// putAndUnlock is put1, lets go of s.w and writes what has become pending meanwhile.
func (s *session[O, I]) putAndUnlock(e O) (sent bool, err error) {
	sent, err = s.put1(e)
	s.w.unlock()
	s.flush()
	return sent, err
}

// starvedToo ends the session if err is that a Send has waited for too long.
func (s *session[O, I]) starvedToo(err error) {
	if v, ok := errors.AsType[*ProtocolError](err); ok && v.Reason == CreditStarved {
		s.fail(err)
	}
}

func (s *session[O, I]) try(e O) (bool, error) {
	if err := s.wire.check(e); err != nil {
		return false, err
	}
	if !s.w.tryLock() {
		return false, s.out.why()
	}
	return s.putAndUnlock(e)
}

// put1 writes pending control and then e, if there is credit for it. s.w is held.
func (s *session[O, I]) put1(e O) (sent bool, err error) {
	var ride *creditpb.Control
	if s.pending.waits.Load() && !s.halved && s.mine.fill(s.elements) {
		if ride, err = s.allButOne(); err != nil {
			return false, s.reasonFor(err)
		}
	}
	size, sent, err := s.out.take(func() int { return s.wire.sizeOut(e) })
	if !sent {
		if ride != nil {
			_ = s.put(ride) // if it fails, the read loop learns why
		}
		return false, err
	}
	s.announce(size)
	if err := s.wire.element(e, ride); err != nil {
		return false, s.unsent(err, ride, size)
	}
	s.noteWrite()
	if ride != nil {
		s.controls.out.Add(1)
	}
	if s.cfg.meter != nil {
		s.sent.elements.Add(1)
		s.sent.bytes.Add(size)
	}
	return true, nil
}

// allButOne writes pending control but for a Request, which it returns: it can ride on
// an element. s.w is held.
func (s *session[O, I]) allButOne() (*creditpb.Control, error) {
	for {
		c, half := s.pending.take(s.out)
		switch {
		case half: // nothing goes out any more: flush does it
			s.pending.halfClose()
			return nil, nil //nolint:nilnil // no control and no error
		case c == nil || s.quiet:
			return nil, nil //nolint:nilnil // likewise
		case c.GetRequest() != nil:
			return c, nil
		}
		if err := s.put(c); err != nil {
			return nil, err
		}
	}
}

// unsent undoes what put1 did for an element that could not be written. Unless err is
// io.EOF the stream may live on: an interceptor has refused the element, or gRPC could not
// encode it, and nothing was written.
func (s *session[O, I]) unsent(err error, ride *creditpb.Control, size int64) error {
	s.out.restore(size)
	if s.ctx.Err() != nil || errors.Is(err, io.EOF) {
		return s.reasonFor(err)
	}
	if ride != nil {
		r := ride.GetRequest()
		s.pending.ask(r.GetN(), r.GetConsumed(), r.GetDrain())
	}
	return err
}

// reasonFor returns why a write failed. On a client gRPC says with io.EOF only that the
// stream is over: the read loop learns why. With anything else control is lost that the
// peer waits for, so it is over, too.
func (s *session[O, I]) reasonFor(err error) error {
	if !s.role.server {
		if !errors.Is(err, io.EOF) {
			s.fail(err)
		}
		<-s.done
	}
	if cause := s.cause(); cause != nil {
		return cause
	}
	return err
}

// terminate ends the outgoing direction. The end of ctx or of the stream ends the wait for
// other writes.
func (s *session[O, I]) terminate(ctx context.Context, terminal func(sent uint64) *creditpb.Control) error {
	if err := s.w.lock(ctx); err != nil {
		return s.because(ctx, err)
	}
	var err error
	if s.out.state().Terminates() {
		_, err = s.writeControl(false) // what is left waits behind the terminal, and a Drained need not follow it
	}
	sent, first := s.out.close() // from here on there may be a half-close to write: after the terminal
	if first && !s.quiet && err == nil {
		err = s.put(terminal(sent))
	}
	if err == nil {
		err = s.wire.flush(ctx)
	}
	s.w.unlock()
	s.settle()
	s.flush()
	switch {
	case err != nil && ctx.Err() != nil && s.ctx.Err() == nil:
		return ctx.Err() // the flush of frames ends with it
	case err != nil:
		if err = s.reasonFor(err); err == errPeace { //nolint:errorlint // this very one: the server was done before
			return nil
		}
		return err
	case first:
		return nil
	}
	return s.out.failure()
}

// rest waits for the receiver after terminate.
func (s *session[O, I]) rest(ctx context.Context) error {
	if !s.role.server && s.in == nil {
		if err := s.restOfCall(ctx); err != nil {
			return err
		}
		return s.out.unconsumed()
	}
	return s.because(ctx, s.out.awaitAllConsumed(ctx))
}

// whyCanceled returns why the receiver has canceled: on a client that only sends, what
// the handler returned says more than that it did.
func (s *session[O, I]) whyCanceled(ctx context.Context, err error) error {
	if s.role.server || s.in != nil {
		return err
	}
	if end := s.restOfCall(ctx); end != nil {
		return end
	}
	return err
}

// restOfCall waits until the call has ended, and returns its status.
func (s *session[O, I]) restOfCall(ctx context.Context) error {
	select {
	case <-s.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.await()
	if err := s.cause(); err != errPeace { //nolint:errorlint // this very one
		return err
	}
	return nil
}
