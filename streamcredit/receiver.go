package streamcredit

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// A Receiver requests elements and receives them. Its methods are safe for concurrent use. Each
// element goes to one caller. The zero value is not usable. [ServeReceive], [DialReceive] and
// their variants return Receivers.
type Receiver[T any] struct{ s receiving[T] }

// receiving is the part of a session that a Receiver uses.
type receiving[T any] interface {
	inbox() *incoming[T]
	did(n int)
	recv(ctx context.Context) (T, error)
	ask(n int64) error
	drain(ctx context.Context) (int64, error)
	cancelIn(reason string)
	closeIn() error
	isExplicit() bool
	isManual() bool
}

// made reports whether a constructor made the receiver.
func (r *Receiver[T]) made() bool { return r != nil && r.s != nil }

// Recv returns the next element. It waits until there is one. The element is consumed when Recv
// returns it, unless [WithExplicitConsume] is set, and makes room for another one. At the end Recv
// returns io.EOF, [ErrGoingAway], or the error with which the sender or the stream ended. The end
// comes after all elements that were received, unless [WithErrorAtOnce] is set.
//
// On a server the end of the stream's context drops the remaining elements if the sender had not
// ended, because the handler has returned or its client has gone. That context also ends when
// gRPC cannot receive a message, because it is too large or cannot be decoded. Recv then still
// returns the elements before that message, and after them the error. If ctx ends, Recv returns
// ctx.Err(), and no element is lost.
//
// Recv may write a Request, and so wait for the transport if the peer does not read. The end of
// the stream's context ends that wait.
func (r *Receiver[T]) Recv(ctx context.Context) (T, error) {
	e, err := r.s.recv(ctx)
	if err == nil && !r.s.isExplicit() {
		r.s.did(1)
	}
	return e, err
}

// All returns an iterator over the remaining elements, as Recv returns them, until the end. An
// element is consumed when the loop's body has ended for it. Leaving the loop early cancels the
// direction, and the last element then does not count as consumed. An error other than io.EOF is
// yielded once, as the last value.
func (r *Receiver[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			e, err := r.s.recv(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(e, err)
				return
			case !yield(e, nil):
				r.Cancel("the receiver has left its loop")
				return
			}
			if !r.s.isExplicit() {
				r.s.did(1)
			}
		}
	}
}

// Request requests n more elements, or all remaining ones if n is math.MaxInt64. For receivers
// with [WithManualDemand]. Requested elements are held in memory until they are consumed. It
// returns an error that wraps ErrInvalid if n is not positive, if the receiver has a window, or
// if demand would be unbounded on a stream that also sends. Both ends of such a stream could wait
// for each other for ever.
func (r *Receiver[T]) Request(n int64) error { return r.s.ask(n) }

// Drain makes the sender give back its unused credit, and waits for the answer. All elements that
// were requested have then arrived, and none arrives until the next Request. It returns the
// credit that was given back. For receivers with [WithManualDemand]. If ctx ends, Drain returns
// and the drain goes on. It returns an error that wraps ErrInvalid if the receiver has a window
// or the sender does not know FEATURE_DRAIN.
func (r *Receiver[T]) Drain(ctx context.Context) (burned int64, err error) { return r.s.drain(ctx) }

// Consume counts n more elements as consumed. For receivers with [WithExplicitConsume]. It returns an
// error that wraps ErrInvalid if n is less than 1 or the application holds fewer elements.
func (r *Receiver[T]) Consume(n int) error {
	if !r.s.isExplicit() {
		return invalid("Consume: got a receiver that consumes by itself, want WithExplicitConsume")
	}
	if had, ok := r.s.inbox().claim(int64(n)); !ok {
		return invalid("Consume: got %d, want 1 to %d, which the application has", n, had)
	}
	r.s.did(0) // claim has counted them, and did requests more if that is due
	return nil
}

// Cancel ends the direction and drops the buffered elements. reason is for people. The sender gets
// its first 200 bytes. The other direction goes on. Recv returns ErrClosed from then on. Cancel may
// wait for the transport.
func (r *Receiver[T]) Cancel(reason string) { r.s.cancelIn(reason) }

// Close ends the direction, with Cancel if the sender has not ended. On a client that only
// receives, it also ends the call and waits for its end. If the sender has ended, it first gives
// the server one second to end the call. A Receiver must be closed, like the Body of an HTTP
// response. Close may be called more than once. It returns the error of the call's status if all
// elements had been received, and otherwise nil.
func (r *Receiver[T]) Close() error { return r.s.closeIn() }

// ReceiverStats is the state of a Receiver.
type ReceiverStats struct {
	Received      uint64        // elements
	ReceivedBytes uint64        // total size, if a size bound or a budget is set; else 0
	Consumed      uint64        // elements that the application has consumed
	Buffered      int           // elements that the application has not seen
	Held          int           // elements that the application holds and has not consumed
	Outstanding   int64         // elements that were requested and have not arrived
	Window        int64         // current size of the window; 0 for manual demand
	Waiting       int           // Recvs that wait now
	Waited        time.Duration // total time in which a Recv waited
}

// Stats returns the state of the receiver. It does not block.
func (r *Receiver[T]) Stats() ReceiverStats { return r.s.inbox().stats() }
