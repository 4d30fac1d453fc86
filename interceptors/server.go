package interceptors

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// UnaryServer returns an interceptor that runs a call once it has a permit of the gate. The
// call may wait for the permit, as the gate is configured. The time that the handler takes,
// and its outcome, are a sample for the limit. The permit is released when the handler
// returns, panics or calls runtime.Goexit, or later with [WithHoldUntilSent]. The interceptor
// runs after gRPC has decoded the request.
//
// With a nil gate, or a wrong option, every call fails with INTERNAL. [Server] reports that
// at start.
func UnaryServer(g *admit.Gate, opts ...ServerOption) grpc.UnaryServerInterceptor {
	c := serverConfig(opts)
	if err := c.cannotWork(g); err != nil {
		return func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, err
		}
	}
	return c.server(g, unaryServer).unary
}

// StreamServer returns an interceptor that bounds the number of open streams. A stream holds
// a permit from before its handler is called until the handler returns, panics or calls
// runtime.Goexit. Such a stream teaches the limit nothing, so give streams a gate of their own
// with a fixed limit. With [StreamReady] or [WithStreams] a stream holds its permit only
// until it is set up.
//
// A stream ends if its client takes none of the messages for two minutes; see
// StreamRule.SendStall.
//
// With a nil gate, or a wrong option, every call fails with INTERNAL. [Server] reports that
// at start.
func StreamServer(g *admit.Gate, opts ...ServerOption) grpc.StreamServerInterceptor {
	c := serverConfig(opts)
	if err := c.cannotWork(g); err != nil {
		return func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
			return err
		}
	}
	return c.server(g, streamServer).stream
}

type server struct {
	config
	*member
}

func (s *server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	call, subject := s.serverCall(ctx, info.FullMethod, nil, req)
	if !subject || s.inside(ctx) {
		return handler(ctx, req)
	}
	var brought []string
	if s.propagates || s.shedRetries {
		call, brought = s.arrive(ctx, call)
	}
	if len(brought) > 0 {
		if m, leave := s.comeBack(ctx, call, brought); leave != nil {
			defer leave()
			resp, err := handler(m, req)
			s.advise(ctx, nil, m, err)
			return resp, err
		}
	}
	permit, err := s.gate.Acquire(ctx, call)
	if err != nil {
		return nil, s.refuse(ctx, nil, err)
	}
	var m *mark
	within := ctx // the context of the handler
	if s.propagates {
		m = s.hop(ctx, call, brought)
	} else {
		m = s.sometimes(ctx)
	}
	if m != nil {
		within = m
	}
	well, outcome := false, admit.Ignored
	defer func() { // also after a panic or Goexit, of the handler or of WithOutcome's function
		m.unwind(well)
		if well {
			s.finish(ctx, &permit, outcome)
		} else {
			permit.Release(outcome)
		}
	}()
	resp, err := handler(within, req)
	well = err == nil
	outcome = s.outcome(ctx, &s.config, nil, info.FullMethod, &permit, err)
	if s.propagates {
		s.advise(ctx, nil, m, err)
	}
	return resp, err
}

func (s *server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	call, subject := s.serverCall(ctx, info.FullMethod, info, nil)
	if !subject || s.inside(ctx) {
		return handler(srv, ss)
	}
	var brought []string
	if s.propagates || s.shedRetries {
		call, brought = s.arrive(ctx, call)
	}
	rule := s.streams.find(ctx, info, s.stall)
	if len(brought) > 0 {
		if m, leave := s.comeBack(ctx, call, brought); leave != nil {
			st := s.newStream(ss, m, info, rule)
			st.leaveHost = leave
			err := st.run(srv, handler)
			s.advise(ctx, ss, m, err)
			return err
		}
	}
	permit, err := s.gate.Acquire(ctx, call)
	if err != nil {
		return s.refuse(ctx, ss, err)
	}
	m := s.hop(ctx, call, brought)
	st := s.newStream(ss, m, info, rule)
	permit.MoveTo(&st.permit)
	err = st.run(srv, handler)
	s.advise(ctx, ss, m, err)
	return err
}

// hop returns a marked context. Calls that the handler makes with it inherit the class and
// the permits of this call.
func (s *server) hop(ctx context.Context, call admit.Call, brought []string) *mark {
	m := s.mark(ctx)
	if m.hop = s.propagates; m.hop {
		m.outer, m.class, m.brought = hopOf(ctx), call.Class, brought
	}
	return m
}

// comeBack admits a call under the permit of the call that it is made for, if it brought a
// valid pass for that permit. Otherwise leave is nil.
func (s *server) comeBack(ctx context.Context, call admit.Call, brought []string) (m *mark, leave func()) {
	out := s.family.passes.enter(brought, s.gate.Limit())
	if out == nil {
		return nil, nil
	}
	m = s.hop(ctx, call, brought)
	m.nested = true
	return m, func() {
		m.unwind(false)
		out()
	}
}

// refuse returns the error of a call that was not admitted, and sends its delay as a
// trailer. The stream is nil for a unary call.
func (s *server) refuse(ctx context.Context, ss grpc.ServerStream, err error) error {
	refused := s.refusals.Error(err)
	if refused.Trailer() != nil {
		s.sendTrailer(ctx, ss, refused.TrailerFor(ctx))
	}
	return refused
}

// sendTrailer tells the client when to retry, unless an interceptor or handler already has.
func (s *server) sendTrailer(ctx context.Context, ss grpc.ServerStream, trailer metadata.MD) {
	// Not grpc.SetTrailer, which makes an error when there is no stream.
	transport := grpc.ServerTransportStreamFromContext(ctx)
	switch {
	case pushedBack(transport):
	case ss != nil:
		ss.SetTrailer(trailer)
	case transport != nil:
		_ = transport.SetTrailer(trailer) // it fails only when the call is over
	}
}

// pushedBack reports whether the call already has a delay for its client. Trailers add up,
// and a client that finds two delays does not retry.
func pushedBack(s grpc.ServerTransportStream) bool {
	t, ok := s.(interface{ Trailer() metadata.MD })
	return ok && len(t.Trailer()[refusal.PushbackKey]) > 0
}
