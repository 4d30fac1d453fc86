package streamcredit

import (
	"context"
	"errors"
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
