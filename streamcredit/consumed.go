package streamcredit

import (
	"context"

	"google.golang.org/grpc/metadata"
)

// doubtTrailer tells a client whether its server's handler, which has returned, may have
// consumed more than was reported. Its last value counts, unsure or sure. Absent means sure.
const doubtTrailer = "weir-credit-consumed"

// did records that the application has consumed n more elements.
func (s *session[O, I]) did(n int) {
	over := s.in.did(n)
	if over {
		s.settle()
	}
	if s.w.pending.waits.Load() {
		s.w.writePending()
		s.confirm()
	}
	if over {
		s.lastWord(s.ctx)
	}
}

// confirm waits until the transport has the report of consumed elements, if the client relies on
// it. The handler may return next. It waits for another write, but at most closeGrace. If the
// report cannot be written, confirm tells the client not to rely on reports.
func (s *session[O, I]) confirm() {
	if !s.in.exact.Load() {
		return
	}
	if !s.w.pending.waits.Load() && !s.w.held.Load() && s.wire.flush(s.ctx) == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, closeGrace)
	defer cancel()
	if s.w.writeNow(ctx, false) != nil {
		s.in.waver()
	}
}

// lapse tells the client that more elements may be consumed than were reported.
func (s *session[O, I]) lapse() {
	s.trailer(metadata.Pairs(doubtTrailer, "unsure"))
	s.lapsed.Store(true) // after the trailer, which assure takes back
}

// assure takes lapse back once the sender has ended. From then on each report is written before
// the handler goes on.
func (s *session[O, I]) assure() {
	s.in.steady()
	if s.w.writeNow(s.ctx, true) == nil {
		s.trailer(metadata.Pairs(doubtTrailer, "sure"))
	}
}

// lastWord gives the report that everything is consumed to the transport before a handler knows
// of the end, since it may return then. It waits at most closeGrace, because a Send may be stuck.
func (s *session[O, I]) lastWord(ctx context.Context) {
	if !s.role.server || s.ctx.Err() != nil || !s.in.complete() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closeGrace)
	written := make(chan struct{})
	s.help(func() {
		defer cancel()
		defer close(written)
		_ = s.w.writeNow(ctx, true) // if it fails, the stream is at its end
	})
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// notifyConsumed calls the hook for consumed elements in another goroutine, unless one runs
// already.
func (s *session[O, I]) notifyConsumed(consumed uint64) {
	if s.cfg.onConsumed == nil || consumed == 0 || !s.notifying.CompareAndSwap(false, true) {
		return
	}
	s.help(func() {
		returned := false
		defer func() {
			if p := recover(); p != nil || !returned {
				s.fail(faultStatus("the hook for consumed elements " + how(p)).Err())
			}
		}()
		for {
			now := s.out.stats().Consumed
			if now > s.told {
				s.told = now
				s.cfg.onConsumed(now)
				continue
			}
			s.notifying.Store(false)
			if s.out.stats().Consumed == now || !s.notifying.CompareAndSwap(false, true) {
				returned = true
				return
			}
		}
	})
}
