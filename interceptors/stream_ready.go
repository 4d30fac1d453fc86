package interceptors

import (
	"context"

	"github.com/weir-go/weir/admit"
)

// StreamReady returns the permit of a stream while its handler goes on, because the stream is
// set up. The limit learns the time until then. ctx is the context of the stream, or derived
// from it. If several gates have admitted the stream, all of them get their permits back.
//
// It does not block and is safe for concurrent use. Only the first call for a stream counts.
// Without a stream that a gate has admitted, and in a unary call, it does nothing.
//
//	func (s *feed) Watch(req *pb.WatchRequest, stream pb.Feed_WatchServer) error {
//		events := s.subscribe(req) // expensive
//		interceptors.StreamReady(stream.Context())
//		for event := range events {
//			...
func StreamReady(ctx context.Context) {
	for s := streamOf(ctx); s != nil; s = streamOf(s.ServerStream.Context()) {
		s.ready(true)
	}
}

// ready returns the permit. well is false if nothing is known about the set-up.
func (s *serverStream) ready(well bool) {
	if s.isReady.Load() { // also if WithOutcome's function calls StreamReady
		return
	}
	s.readying.Lock()
	defer s.readying.Unlock()
	if !s.isReady.CompareAndSwap(false, true) {
		return
	}
	s.mark.unwind(false) // later calls of the handler need permits of their own
	if s.leaveHost != nil {
		s.leaveHost()
		return
	}
	outcome := admit.Ignored
	defer func() { s.permit.Ready(outcome) }() // also if WithOutcome's function panics
	if well {
		outcome = s.outcomeOf(nil)
	}
}

type streamKey struct{}

// streamOf returns the innermost stream that an interceptor of this package has wrapped, nil
// if there is none.
func streamOf(ctx context.Context) *serverStream {
	s, _ := ctx.Value(streamKey{}).(*serverStream)
	return s
}

// A streamContext is the context of a stream. It leads to the stream.
type streamContext struct {
	context.Context
	stream *serverStream
}

// Value implements context.Context.
func (c *streamContext) Value(key any) any {
	if _, ok := key.(streamKey); ok {
		return c.stream
	}
	return c.Context.Value(key)
}
