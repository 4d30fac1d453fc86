package breaker

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/interceptors/internal/peers"
)

// A stream is the breaker's observer of one stream.
type stream struct {
	*circuit
	ticket ticket
	began  time.Duration
	ctx    context.Context
	seen   atomic.Bool // headers or a message
	left   atomic.Bool
}

// Answered counts the stream as a success, because it may last for ever.
func (s *stream) Answered(cs grpc.ClientStream) {
	if s.seen.Swap(true) || s.left.Load() {
		return
	}
	now := s.breaker.now()
	s.pace.Saw(now-s.began, now)
	answered := s.ticket
	if answered.witness != nil {
		answered.witness = peers.WitnessOf(cs)
	}
	if s.ticket.probe != nil {
		s.leaveOnce(Healthy, answered.witness)
		return
	}
	s.count(answered, Healthy)
	s.tell()
}

func (s *stream) Ended(err error) {
	if s.left.Load() { // WithVerdict's function is asked once
		return
	}
	v := s.verdict(s.ctx, s.began, err)
	switch {
	case v == Healthy && s.seen.Load():
		v = Excluded // it is counted
	case v != Unwell || s.breaker.verdictOf != nil:
	case status.Code(err) == codes.Canceled:
		v = Excluded // a stream may wait for its first message as long as its caller likes
	case s.seen.Load() && status.Code(err) == codes.DeadlineExceeded:
		v = Excluded // it was to last until its deadline
	}
	s.leaveOnce(v, s.ticket.witness)
}

func (s *stream) Abandoned() { s.leaveOnce(Excluded, nil) }

// leaveOnce counts the end of the stream.
func (s *stream) leaveOnce(v Verdict, w *peers.Witness) {
	if s.left.Swap(true) {
		return
	}
	p := s.ticket
	p.witness = w
	s.leave(p, v)
	s.tell()
}
