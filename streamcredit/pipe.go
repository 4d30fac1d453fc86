package streamcredit

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// ErrSkip is returned by the function of a [Pipe] for an element that it drops.
var ErrSkip = errors.New("streamcredit: skip this element")

// pipeAhead is the number of elements that a pipe requests ahead of the elements that it has
// sent, where the demand for them is unbounded. mostAhead is the largest such number otherwise. It
// is the default of the largest window that a receiver has.
const (
	pipeAhead = ledger.MostUnbounded
	mostAhead = ledger.AutoMax
)

// Pipe makes a stage of two streams. It receives from in, calls f with each element, and sends
// the result to out. It requests as many elements as out was asked for, and no more. The demand
// of the last receiver of a pipeline therefore travels to the source, and elements do not queue
// in between. A receiver that asks for very much does not make a stage hold as much. Pipe requests
// at most 65,536 elements ahead of the ones that it has sent, or 1,024 where demand is unbounded.
// in must have been made [WithManualDemand]. An element is consumed when its result
// was sent, or, with [WithExplicitConsume], when the application calls Consume. No other code may send
// to out meanwhile.
//
// Pipe returns when one side has ended, and ends the other side in the same way. The end and
// errors travel downstream, Cancel travels upstream. Pipe returns nil if in has ended and
// everything was sent, ErrCanceled if the receiver of out has canceled, or the error of in, out
// or f. If it is the error of f, out is closed with it. One goroutine calls f. If f returns
// ErrSkip, nothing is sent. Pipe also returns when ctx ends, except during a write that the
// transport does not take: see [Sender.Send].
func Pipe[A, B any](ctx context.Context, in *Receiver[A], out *Sender[B], f func(context.Context, A) (B, error)) error {
	var bad check.Errors
	bad.That(in.made(), "in: got none, want a Receiver of DialReceive, ServeReceive or their variants")
	bad.That(!in.made() || in.s.isManual(), "in: got a receiver with a window, want WithManualDemand")
	bad.That(out.made(), "out: got none, want a Sender of ServeSend, DialSend or their variants")
	bad.That(f != nil, "f: got nil, want a function")
	if err := misused(bad); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var forwarding sync.WaitGroup
	forwarding.Go(func() { shelter(func() error { return forward(ctx, in, out) }, stop) })
	err := pump(ctx, in, out, f)
	if err != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx)
	}
	stop(nil)
	forwarding.Wait()
	if err == nil {
		return nil
	}
	in.Cancel("a later stage of the pipeline has ended")
	if closed := out.CloseWithError(err); closed != nil {
		return closed // such as ErrCanceled, which came first
	}
	return err
}

// forward requests from in the elements that out is asked for, until ctx or out ends.
func forward[A, B any](ctx context.Context, in *Receiver[A], out *Sender[B]) error {
	o := out.s.ledger()
	asked := int64(o.stats().Sent) // before this Pipe
	for {
		more, err := o.beyond(ctx, asked)
		if err != nil {
			return err
		}
		if err := in.Request(more); err != nil {
			return err
		}
		asked += more
	}
}

// pump moves elements from in to out.
func pump[A, B any](ctx context.Context, in *Receiver[A], out *Sender[B], f func(context.Context, A) (B, error)) error {
	for {
		a, err := in.s.recv(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return out.Close()
		case errors.Is(err, ErrGoingAway):
			return out.CloseGoingAway()
		case err != nil:
			return err
		}
		b, err := f(ctx, a)
		switch {
		case errors.Is(err, ErrSkip):
			err = in.Request(1)
		case err == nil:
			err = out.Send(ctx, b)
		}
		if err != nil {
			return err
		}
		if !in.s.isExplicit() {
			in.s.did(1)
		}
	}
}
