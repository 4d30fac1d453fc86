package streamcredit

import (
	"context"
	"errors"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

func (s *session[O, I]) ledger() *outgoing { return s.out }

// drop counts elements that an outbox has dropped, possibly after the end.
func (s *session[O, I]) drop(n int) {
	if s.cfg.meter != nil {
		s.cfg.meter.dropped.Add(uint64(n))
	}
}

// send waits for demand and for other writes, and writes e.
func (s *session[O, I]) send(ctx context.Context, e O) error {
	if err := ctx.Err(); err != nil {
		return s.because(ctx, err)
	}
	if err := s.wire.check(e); err != nil {
		return err
	}
	if s.w.tryLock() { // there is usually credit
		if sent, err := s.w.writeElement(e); sent || err != nil {
			return s.delivered(ctx, err)
		}
	}
	for {
		if err := s.waitCredit(ctx); err != nil {
			return s.delivered(ctx, err)
		}
		if err := s.w.lockUntil(ctx); err != nil {
			return s.because(ctx, err)
		}
		if sent, err := s.w.writeElement(e); sent || err != nil {
			return s.delivered(ctx, err)
		}
	}
}

// valid returns an error if e cannot be an element of any stream.
func (s *session[O, I]) valid(e O) error { return s.wire.check(e) }

// waitCredit waits for demand.
func (s *session[O, I]) waitCredit(ctx context.Context) error {
	waited, err := s.out.await(ctx, s.cfg.stall)
	if s.cfg.onStarved != nil && waited > 0 {
		s.cfg.onStarved(ctx, waited)
	}
	err = s.because(ctx, err)
	if err != nil {
		s.starvedToo(err)
	}
	return err
}

// delivered returns err. If the receiver wants no more, the handler is likely to return now.
// delivered therefore first gives the elements that were sent before to the transport.
func (s *session[O, I]) delivered(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, ErrCanceled) {
		_ = s.wire.flush(ctx) // err matters more
	}
	return err
}

// starvedToo ends the session if err says that a Send has waited for too long.
func (s *session[O, I]) starvedToo(err error) {
	if v, ok := errors.AsType[*ProtocolError](err); ok && v.Reason == CreditStarved {
		s.fail(err)
	}
}

// try sends e if it need not wait for demand or for another write.
func (s *session[O, I]) try(e O) (bool, error) {
	if err := s.wire.check(e); err != nil {
		return false, err
	}
	if !s.w.tryLock() {
		return false, s.out.why()
	}
	return s.w.writeElement(e)
}

// terminate ends the outgoing direction. The end of ctx or of the stream ends its wait for other
// writes.
func (s *session[O, I]) terminate(ctx context.Context, terminal func(sent uint64) *creditpb.Control) error {
	if err := s.w.lockUntil(ctx); err != nil {
		return s.because(ctx, err)
	}
	first, err := s.terminateAndUnlock(ctx, terminal)
	s.settle()
	s.w.writePending()
	switch {
	case err != nil && ctx.Err() != nil && s.ctx.Err() == nil:
		return ctx.Err() // ctx ends the flush of frames
	case err != nil:
		if err = s.reasonFor(err); err == errPeace { //nolint:errorlint // the same value, if the server was done before
			return nil
		}
		return err
	case first:
		return nil
	}
	return s.out.failure()
}

// terminateAndUnlock writes the terminal, and waits until the transport has it.
func (s *session[O, I]) terminateAndUnlock(ctx context.Context, terminal func(sent uint64) *creditpb.Control) (first bool, err error) {
	returned := false
	defer s.w.release(&returned)
	if first, err = s.w.writeTerminalLocked(terminal); err == nil {
		err = s.wire.flush(ctx)
	}
	returned = true
	return first, err
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

// whyCanceled returns why the receiver has canceled. On a client that only sends, the status of
// the handler says more than err, which only says that it has.
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
	return s.failure()
}
