package interceptors

import (
	"context"
	"slices"
	"time"

	"github.com/weir-go/weir/admit"
)

// A StreamSetup says when the set-up of a stream is over. A call of [StreamReady] always ends
// it, and with the zero value nothing else does.
type StreamSetup struct {
	// FirstMessage ends the set-up when a SendMsg of the handler has returned without an
	// error.
	FirstMessage bool
	// After ends the set-up after this time. The limit learns nothing from it then. Zero
	// means no such end.
	After time.Duration
}

// WithStreamSetup lets the streams that match hold a permit only while they are set up. A
// nil matcher matches every stream. The permit is returned when the handler calls
// [StreamReady], when the StreamSetup says so, or at the latest when the handler returns. If
// the option is used several times, the first match wins.
//
//	interceptors.WithStreamSetup(interceptors.StreamSetup{FirstMessage: true}, interceptors.Methods("/shop.Feed/Watch"))
//
// The limit learns from a set-up as from a unary call. A stream that gets ready is a success,
// and the time until then its latency. A stream that fails earlier counts by its error. So the
// limit of the gate may adapt. A stream that ends without an error before it is ready is
// ignored.
//
// The limit then does not bound the number of open streams. Use admit.WithMaxOpen for that.
func WithStreamSetup(s StreamSetup, m Matcher) ServerOption {
	return serverOption(func(c *config) {
		c.streams.setups = append(slices.Clip(c.streams.setups), streamRule[StreamSetup]{m, s})
	})
}

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
