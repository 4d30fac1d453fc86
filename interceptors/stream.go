package interceptors

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
)

// A serverStream is the stream that a handler gets. A gate has let it in, or there is no gate
// for it.
type serverStream struct {
	grpc.ServerStream
	ctx    streamContext
	plan   plan
	method string
	server *server // nil: no gate
	mark   *mark
	permit admit.Permit
	guest  func() // ends a stream that runs under the permit of another call; else nil
	sends  sends
	timer  *time.Timer // of StreamSetup.After

	isReady atomic.Bool // it has no permit any more
}

// newStream returns a stream whose context is parent.
func newStream(parent context.Context, ss grpc.ServerStream, info *grpc.StreamServerInfo, p plan) *serverStream {
	s := &serverStream{ServerStream: ss, plan: p, method: info.FullMethod}
	s.ctx = streamContext{parent, s}
	if outer := streamOf(ss.Context()); outer == nil || outer.sends.bound <= 0 { // one watch is enough
		s.sends.bound, s.sends.ctx = p.stall, ss.Context()
	}
	return s
}

// newStream returns a stream that this gate has let in. It has yet to get its permit.
func (s *server) newStream(ss grpc.ServerStream, m *mark, info *grpc.StreamServerInfo, p plan) *serverStream {
	st := newStream(m, ss, info, p)
	st.server, st.mark, st.sends.member = s, m, s.member
	return st
}

// run calls the handler. The permit is held until it has returned, panicked or called
// runtime.Goexit, unless the stream gets ready before.
func (s *serverStream) run(srv any, handler grpc.StreamHandler) error {
	outcome := admit.Ignored
	defer func() { s.leave(outcome) }()
	if s.plan.setup.After > 0 {
		s.timer = time.AfterFunc(s.plan.setup.After, func() { s.ready(false) })
	}
	err := handler(srv, s)
	s.sends.watch.Stop() // from here on it is clear whether the stream was ended
	if why := s.sends.ended.Load(); why != nil {
		err = why // the client sees it, whatever the handler makes of it
	}
	if err != nil && s.plan.setsUp && !s.isReady.Load() {
		outcome = s.outcomeOf(err)
	}
	return err
}

// leave ends what goes on for a stream.
func (s *serverStream) leave(o admit.Outcome) {
	s.sends.watch.Stop()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.isReady.Store(true) // a StreamReady from now on teaches nothing
	s.mark.unwind(false)
	if s.guest != nil {
		s.guest()
	}
	s.permit.Release(o)
}

// outcomeOf says what the end of the set-up means to the limit.
func (s *serverStream) outcomeOf(err error) admit.Outcome {
	if s.server == nil || s.guest != nil {
		return admit.Ignored
	}
	return s.server.outcome(s.ServerStream.Context(), &s.server.config, nil, s.method, &s.permit, err)
}

// Context implements grpc.ServerStream.
func (s *serverStream) Context() context.Context { return &s.ctx }

// SendMsg implements grpc.ServerStream.
func (s *serverStream) SendMsg(m any) error {
	err := s.send(m)
	if err == nil && s.plan.setup.FirstMessage && !s.isReady.Load() {
		s.ready(true)
	}
	return err
}

func (s *serverStream) send(m any) error {
	if s.sends.bound <= 0 {
		return s.ServerStream.SendMsg(m)
	}
	s.sends.begin()
	defer s.sends.end(m)
	return s.sends.because(s.ServerStream.SendMsg(m))
}

// RecvMsg implements grpc.ServerStream.
func (s *serverStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err != nil {
		return s.sends.because(err)
	}
	return nil
}

// watched returns an interceptor for streams that no gate is for: it bounds their Sends.
func (c *config) watched(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if _, subject := c.serverCall(ctx, info.FullMethod, info, nil); !subject {
		return handler(srv, ss)
	}
	p := c.streams.plan(ctx, info)
	if p.stall <= 0 {
		return handler(srv, ss)
	}
	p.setup = StreamSetup{} // there is no permit
	return newStream(ctx, ss, info, p).run(srv, handler)
}
