package streamcredit

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// A Receiver asks for elements and receives them. Its methods are safe for concurrent
// use; each element goes to one caller. The zero value is of no use: see
// [ServeReceive], [DialReceive] and their like.
type Receiver[T any] struct{ s receiving[T] }

// receiving is what a session offers to its Receiver.
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

// Recv returns the next element. It waits until there is one. With it the element is
// consumed, unless [WithExplicitDone] says otherwise: there is room for another one. At
// the end it returns io.EOF, or [ErrGoingAway], or else the error with which the sender
// or the stream ended; before that come all elements that were received, unless
// [WithErrorAtOnce] says otherwise. On a server the end of the stream's context drops
// what is left, if the sender had not ended: nobody waits for it. A message that gRPC cannot
// receive, because it is too large or cannot be decoded, ends that context as well, but Recv
// still returns the elements before it, and then that error. The end of ctx ends the wait,
// and nothing is lost.
//
// Recv may write what it asks for, and so wait for the transport, if the peer does
// not read; the end of the stream's context ends that.
func (r *Receiver[T]) Recv(ctx context.Context) (T, error) {
	e, err := r.s.recv(ctx)
	if err == nil && !r.s.isExplicit() {
		r.s.did(1)
	}
	return e, err
}

// All returns the elements that are left, as Recv does, until the end. An element is
// consumed when the loop's body has ended. Leaving the loop early cancels the direction,
// and the last element is then not consumed. An error other than the end is yielded
// once, last.
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

// Request asks for n elements more, math.MaxInt64 for all there are. For receivers with
// [WithManualDemand]. What was asked for and is not consumed is held in memory. It
// returns an error that wraps ErrInvalid if n is not positive, if the receiver has
// a window, or if unbounded demand would meet a sender on the same stream, which may
// then both wait for each other for ever.
func (r *Receiver[T]) Request(n int64) error { return r.s.ask(n) }

// Drain has the sender give back the credit that it has not used, and waits for its
// answer: then what was asked for is here, and nothing more will come until Request. It
// returns how much was given back. For receivers with [WithManualDemand]. The end of ctx
// ends the wait; the drain goes on. It returns an error that wraps ErrInvalid if
// the receiver has a window or the sender does not know how to drain.
func (r *Receiver[T]) Drain(ctx context.Context) (burned int64, err error) { return r.s.drain(ctx) }

// Done says that the application is done with n elements more. For receivers with
// [WithExplicitDone]. It returns an error that wraps ErrInvalid if the application does
// not have so many.
func (r *Receiver[T]) Done(n int) error {
	if !r.s.isExplicit() {
		return invalid("got Done on a receiver that consumes by itself, want WithExplicitDone")
	}
	if had, ok := r.s.inbox().claim(int64(n)); !ok {
		return invalid("got Done(%d), want 1 to %d, which the application has", n, had)
	}
	r.s.did(0) // they are counted: see what is to be done
	return nil
}

// Cancel asks for no more, ever, and drops what is buffered. reason is for people. The
// stream's other direction goes on. Recv returns ErrClosed from now on. It may wait for
// the transport.
func (r *Receiver[T]) Cancel(reason string) { r.s.cancelIn(reason) }

// Close ends the direction, with Cancel if the sender has not ended. On a client that
// only receives it ends the call, too, and waits for that, a second for the server to do
// its part. It is to be called, as the Body of an HTTP response is to be closed; closing
// twice is closing once. The error is that of the call's status, if all elements had
// been received; else nil.
func (r *Receiver[T]) Close() error { return r.s.closeIn() }

// ReceiverStats is the state of a Receiver.
type ReceiverStats struct {
	Received    uint64        // elements
	Bytes       int64         // their size together, where it is bounded; else 0
	Consumed    uint64        // elements that the application is done with
	Buffered    int           // elements that the application has not seen
	Held        int           // elements that the application has and is not done with
	Outstanding int64         // elements that were asked for and have not arrived
	Window      int           // the size of the window now; 0: manual demand
	Waiting     int           // Recvs that wait now
	Waited      time.Duration // time in which at least one did
}

// Stats returns the state of the receiver. It does not block.
func (r *Receiver[T]) Stats() ReceiverStats { return r.s.inbox().stats() }
