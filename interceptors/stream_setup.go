package interceptors

import (
	"context"
	"slices"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"

	"github.com/weir-go/weir/admit"
)

// A StreamSetup says when the set-up of a stream is over, besides a call of [StreamReady]. With
// the zero value only that ends it.
type StreamSetup struct {
	// FirstMessage ends it when the handler's first SendMsg has returned without an error.
	FirstMessage bool
	// After ends it after this time. The limit learns nothing from such a set-up. Zero means
	// no such end.
	After time.Duration
}

// WithStreamSetup says that streams that match need a permit only to be set up; a nil matcher
// matches all. Their permit comes free when the handler calls [StreamReady], or as the StreamSetup
// says, and at the latest when the handler has returned. Of several uses the first that matches
// counts.
//
//	interceptors.WithStreamSetup(interceptors.StreamSetup{FirstMessage: true}, interceptors.Methods("/shop.Feed/Watch"))
//
// A set-up teaches the limit as a unary call does: one that gets ready is a success with the
// time that it took, and a stream that fails before counts by its error. So the gate may have a
// limit that adapts. A stream that ends well without having been ready is ignored.
//
// The limit does not bound how many streams are open then. Use admit.WithMaxOpen for that.
func WithStreamSetup(s StreamSetup, m selector.Matcher) ServerOption {
	return serverOption(func(c *config) {
		c.streams.setups = append(slices.Clip(c.streams.setups), streamRule[StreamSetup]{m, s})
	})
}

// StreamReady gives the permit of a stream back, while its handler goes on: the stream is set
// up. ctx is the context of the stream, or one made from it. The limit learns the time until
// then. What the handler does with other gates of its chain, too: all of them get their permits
// back. It does not block, and is safe for concurrent use. Only the first call does something.
//
// Outside of a stream that a gate has let in, and in a unary call, it does nothing.
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

// ready gives the permit back. The set-up went well, or nothing is known of it.
func (s *serverStream) ready(well bool) {
	if !s.isReady.CompareAndSwap(false, true) {
		return
	}
	s.mark.unwind(false) // calls that the handler makes from now on need permits of their own
	if s.guest != nil {
		s.guest()
		return
	}
	outcome := admit.Ignored
	defer func() { s.permit.Ready(outcome) }() // also if WithOutcome's function panics
	if well {
		outcome = s.outcomeOf(nil)
	}
}

type streamKey struct{}

// streamOf returns the innermost stream that the interceptors of this package have wrapped, nil
// if there is none.
func streamOf(ctx context.Context) *serverStream {
	s, _ := ctx.Value(streamKey{}).(*serverStream)
	return s
}

// A streamContext is the context of a stream, in which the stream is found.
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
