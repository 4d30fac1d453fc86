package streamcredit

import (
	"context"
	"errors"
	"strings"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

func (s *session[O, I]) inbox() *incoming[I] { return s.in }
func (s *session[O, I]) isExplicit() bool    { return s.cfg.explicit }
func (s *session[O, I]) isManual() bool      { return s.cfg.mode == manualDemand }

func (s *session[O, I]) recv(ctx context.Context) (I, error) {
	e, err := s.in.next(ctx)
	if err != nil && s.outlived(ctx) {
		e, err = s.in.next(context.WithoutCancel(ctx)) // does not wait, since the direction has ended
	}
	if err != nil {
		s.lastWord(ctx)
	}
	return e, err
}

// ask is Receiver.Request.
func (s *session[O, I]) ask(n int64) error {
	switch {
	case s.cfg.mode != manualDemand:
		return invalid("Request: got a receiver with a window, want WithManualDemand")
	case n < 1:
		return invalid("Request: got %d, want at least 1", n)
	}
	if err := s.in.demand(n, s.out == nil); err != nil {
		return err
	}
	s.w.writePending()
	return nil
}

func (s *session[O, I]) drain(ctx context.Context) (int64, error) {
	if s.cfg.mode != manualDemand {
		return 0, invalid("Drain: got a receiver with a window, want WithManualDemand")
	}
	select {
	case <-s.opened:
	case <-s.in.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	answered, err := s.in.drain()
	if err != nil {
		return 0, err
	}
	s.w.writePending()
	select {
	case burned := <-answered:
		return burned, nil
	case <-s.in.done:
		err = s.in.why()
	case <-ctx.Done():
		err = ctx.Err()
	}
	select {
	case burned := <-answered: // both happened at once
		return burned, nil
	default:
		return 0, err
	}
}

func (s *session[O, I]) cancelIn(reason string) {
	if s.in.cancel() {
		s.w.pending.cancelDirection(&creditpb.Cancel{Reason: clip(strings.ToValidUTF8(reason, "\uFFFD"), mostReason)})
	}
	s.settle()
	s.w.writePending()
}

// closeGrace bounds the wait for events that should follow at once. A client waits so long for
// the server to end a call after all elements were received, and Close waits so long for another
// write.
const closeGrace = time.Second

func (s *session[O, I]) closeIn() error {
	complete, ended := s.in.complete(), s.in.why() != nil
	call := !s.role.server && s.out == nil
	if call {
		defer s.endSoon()()
	}
	s.cancelIn("the receiver was closed")
	if !call {
		return nil
	}
	return s.closeCall(complete, ended)
}

// endSoon ends a client's call after closeGrace, with any write that is stuck. Stop prevents
// that.
func (s *session[O, I]) endSoon() (stop func() bool) {
	return time.AfterFunc(closeGrace, func() { s.fail(ErrClosed) }).Stop
}

// closeCall ends a client's call. If both directions had ended before, it first waits for the
// server to end the call, since elements may still be on their way. If they were complete, it
// returns the call's status.
func (s *session[O, I]) closeCall(complete, ended bool) error {
	if ended {
		<-s.done // endSoon bounds the wait
	}
	s.fail(ErrClosed)
	s.await()
	if err := s.failure(); complete && !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// closeAll is Duplex.Close.
func (s *session[O, I]) closeAll() error {
	complete := s.in == nil || s.in.complete()
	ended := (s.in == nil || s.in.why() != nil) && (s.out == nil || !s.out.state().Terminates())
	if !s.role.server {
		defer s.endSoon()()
	}
	if s.out != nil && s.out.state().Terminates() {
		_ = s.terminate(s.ctx, completed) // a lost element was reported by its Send
	}
	if s.in != nil {
		s.cancelIn("the stream was closed")
	}
	if s.role.server {
		return nil
	}
	return s.closeCall(complete && ended, ended)
}
