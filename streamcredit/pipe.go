package streamcredit

import (
	"context"
	"errors"
	"io"
	"sync"
)

// ErrSkip is what the function of a [Pipe] returns for an element of which it makes
// none.
var ErrSkip = errors.New("streamcredit: skip this element")

// pipeAhead is how far a pipe asks ahead of what it has sent, in elements, where the demand
// that it serves is unbounded.
const pipeAhead = 1024

// Pipe makes a stage of two streams: it receives from in, has f make an element of each
// one, and sends that to out. It asks for as much as it was asked for and no more, so that
// the demand of the last receiver of a pipeline travels to its source, and nothing
// gathers in between. in must have been made [WithManualDemand]. An element is consumed when
// what f made of it was sent, or, [WithExplicitDone], when somebody calls Done. Nobody else
// may send to out meanwhile.
//
// Pipe returns when one side has ended, and ends the other one likewise: the end and errors
// go downstream, Cancel goes upstream. It returns nil if in ended and everything was
// sent, ErrCanceled if the receiver of out has canceled, the error of in or out, or what f
// returned, which out is closed with. f is called by one goroutine; if it returns
// ErrSkip there is no element to send. The end of ctx ends it all, but for a write that the
// transport does not take: see [Sender.Send].
func Pipe[A, B any](ctx context.Context, in *Receiver[A], out *Sender[B], f func(context.Context, A) (B, error)) error {
	if !in.s.isManual() {
		return invalid("got a pipe from a receiver with a window, want WithManualDemand")
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var forwarding sync.WaitGroup
	forwarding.Go(func() { stop(forward(ctx, in, out)) })
	err := pump(ctx, in, out, f)
	stop(nil)
	forwarding.Wait()
	if err == nil {
		return nil
	}
	in.Cancel("a later stage of the pipeline has ended")
	if closed := out.CloseWithError(err); closed != nil {
		return closed // ErrCanceled, say: that came first
	}
	return err
}

// forward asks in for what out was asked for, until ctx or out ends.
func forward[A, B any](ctx context.Context, in *Receiver[A], out *Sender[B]) error {
	o := out.s.ledger()
	asked := int64(o.stats().Sent) // before this one
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

// pump moves elements.
func pump[A, B any](ctx context.Context, in *Receiver[A], out *Sender[B], f func(context.Context, A) (B, error)) error {
	for {
		a, err := in.s.recv(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return out.Close()
		case errors.Is(err, ErrGoingAway):
			return out.CloseGoingAway()
		case err != nil && errors.Is(err, ctx.Err()):
			return context.Cause(ctx)
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
