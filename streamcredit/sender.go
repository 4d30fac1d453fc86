package streamcredit

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A Sender sends elements as the receiver requests them. Its methods are safe for concurrent use.
// Elements of one goroutine arrive in the order of its calls. The zero value is not usable.
// [ServeSend], [DialSend] and their variants return Senders.
type Sender[T any] struct{ s sending[T] }

// sending is the part of a session that a Sender uses.
type sending[T any] interface {
	send(ctx context.Context, e T) error
	try(e T) (bool, error)
	valid(e T) error
	terminate(ctx context.Context, terminal func(sent uint64) *creditpb.Control) error
	waitCredit(ctx context.Context) error
	rest(ctx context.Context) error
	whyCanceled(ctx context.Context, err error) error
	because(ctx context.Context, err error) error
	ledger() *outgoing
	drop(n int)
}

// made reports whether a constructor made the sender.
func (s *Sender[T]) made() bool { return s != nil && s.s != nil }

// Send sends e once the receiver has requested it, and returns when the transport has taken it.
// It waits for demand, for the receiver's byte window and for the transport. If ctx ends during
// the first two waits, e was not sent and no credit is used. A write that the transport does not
// take ends only with the stream, for example when the stream's context is canceled. On a server
// a [*ProtocolError] ends the stream, too, including that of a peer which misses its heartbeats
// ([WithHeartbeat]). Do not change e after the call. e may be sent on many streams.
//
// The errors are ErrCanceled, ErrClosed, ErrTooLarge, ErrInvalid (e is nil or not an element),
// ctx.Err(), a [*ProtocolError], or the status with which the stream ended.
func (s *Sender[T]) Send(ctx context.Context, e T) error { return s.s.send(ctx, e) }

// TrySend sends e if it need not wait for demand or for another goroutine that sends. It reports
// whether it did. Only the transport can make it wait. It returns the errors of Send.
func (s *Sender[T]) TrySend(e T) (bool, error) { return s.s.try(e) }

// SendSeq sends the elements of a sequence. It draws an element only when there is demand for it.
// It stops at the first error and returns it. It does not end the direction. It notices the end of
// the sequence only when there is demand for one more element.
func (s *Sender[T]) SendSeq(ctx context.Context, elements iter.Seq[T]) error {
	next, stop := iter.Pull(elements)
	defer stop()
	for {
		if err := s.WaitCredit(ctx); err != nil {
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

// WaitCredit waits until an element may be sent, so that the caller can produce it when it is
// wanted. If several goroutines send, another one may use the credit first. It returns the errors
// of Send.
func (s *Sender[T]) WaitCredit(ctx context.Context) error { return s.s.waitCredit(ctx) }

// WaitDemand waits until the receiver has requested more than the first asked elements of the
// stream, and returns how many more. A source that is itself asked for elements uses it,
// because demand may grow while it waits for an element. WaitDemand stays at most 65,536 elements
// ahead of the elements that were sent, or 1,024 where demand is unbounded. It returns the errors
// of Send. Only one goroutine may call it at a time, and no [Pipe] may send to s.
func (s *Sender[T]) WaitDemand(ctx context.Context, asked uint64) (more int64, err error) {
	more, err = s.s.ledger().beyond(ctx, int64(min(asked, math.MaxInt64)))
	return more, s.s.because(ctx, err)
}

// Credit returns how many elements may be sent now. It is math.MaxInt64 if demand is unbounded,
// and 0 while the receiver's byte window is full. It does not block.
func (s *Sender[T]) Credit() int64 { return s.s.ledger().allowed() }

// Consumed returns how many elements the receiver has reported as consumed. They are the first
// elements that were sent. It does not block. The receiver decides when to report. weir's
// receivers report when they request more, and within 100 ms after they have nothing more to do.
func (s *Sender[T]) Consumed() uint64 { return s.s.ledger().stats().Consumed }

// WaitConsumed waits until the receiver has consumed the first n elements. It returns ctx.Err(), or
// the reason why the direction ended before. That is ErrClosed if it was closed after fewer than n
// elements.
func (s *Sender[T]) WaitConsumed(ctx context.Context, n uint64) error {
	return s.s.because(ctx, s.s.ledger().awaitConsumed(ctx, n))
}

// Done returns a channel that is closed when nothing more can be sent, because the receiver has
// canceled, the stream has ended, or the direction was closed. A source that has no element to
// send can wait for it.
func (s *Sender[T]) Done() <-chan struct{} { return s.s.ledger().done }

// Close tells the receiver that all elements were sent. It needs no demand. It waits for a Send
// that is writing, but not for the receiver. A handler may return after it. Close may be called
// more than once.
func (s *Sender[T]) Close() error {
	return s.s.terminate(context.Background(), completed)
}

func completed(sent uint64) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{Total: sent}}}
}

// CloseGoingAway is Close for a server that stops while it has more elements to send. The
// receiver's Recv returns [ErrGoingAway] at the end, and the receiver may continue with another
// server.
func (s *Sender[T]) CloseGoingAway() error {
	return s.s.terminate(context.Background(), func(sent uint64) *creditpb.Control {
		return &creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{Total: sent, GoingAway: true}}}
	})
}

// CloseWithError ends the elements early, with an error. The receiver's Recv returns the status
// of err, with its details, after the elements that were sent. It is a client's only way to
// report an error. A server's handler may return err instead. The peer may not take a large
// message, so the text of err is cut after 8 KiB, and details of more than 32 KiB are left out.
// Otherwise, and if err is nil, CloseWithError is like Close.
func (s *Sender[T]) CloseWithError(err error) error {
	if err == nil {
		return s.Close()
	}
	e := wireError(err)
	return s.s.terminate(context.Background(), func(sent uint64) *creditpb.Control {
		e.Total = sent
		return &creditpb.Control{Kind: &creditpb.Control_Error{Error: e}}
	})
}

// Finish is Close, and then waits until the receiver has consumed everything or has left. A
// server's handler should return its result. On a client that only sends, Finish waits for the
// handler to return, and returns its status. It does not wait for a receiver that does not report
// consumed elements. It returns nil if the receiver consumed everything, ctx.Err(), an
// [*UnconsumedError] if the receiver ended the stream without a failure but left elements
// unconsumed, or else the error that Send would return. The end of ctx does not end a write that
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
	Sent      uint64        // elements
	SentBytes uint64        // total size, if there is a meter or the receiver bounds sizes; else 0
	Consumed  uint64        // elements that the receiver has reported as consumed
	Credit    int64         // elements that may be sent now, byte window aside; math.MaxInt64 if unbounded
	Waiting   int           // Sends that wait for demand now
	Starved   time.Duration // total time in which a Send waited
}

// Stats returns the state of the sender. It does not block.
func (s *Sender[T]) Stats() SenderStats { return s.s.ledger().stats() }
