package interceptors

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/hold"
)

// A serverStream is the stream that a handler gets.
type serverStream struct {
	grpc.ServerStream
	ctx    streamContext
	rule   StreamRule
	method string
	server *server // nil if no gate admitted the stream
	mark   *mark
	permit admit.Permit
	// leaveHost ends a stream that runs under the permit of another call. Otherwise it is nil.
	leaveHost func()
	sends     sends
	held      *hold.Call  // nil if the stream does not keep its permit until its messages have left
	timer     *time.Timer // for StreamRule.ReadyAfter

	readying sync.Mutex  // held while ready returns the permit
	isReady  atomic.Bool // the set-up is over
}

// newStream returns a stream with a context below parent.
func newStream(parent context.Context, ss grpc.ServerStream, info *grpc.StreamServerInfo, r StreamRule) *serverStream {
	s := &serverStream{ServerStream: ss, rule: r, method: info.FullMethod}
	s.ctx = streamContext{parent, s}
	if outer := streamOf(ss.Context()); outer == nil || outer.sends.bound <= 0 { // one watch is enough
		s.sends.bound, s.sends.ctx = r.SendStall, ss.Context()
	}
	return s
}

// newStream returns a stream that this gate has admitted. The caller adds the permit.
func (s *server) newStream(ss grpc.ServerStream, m *mark, info *grpc.StreamServerInfo, r StreamRule) *serverStream {
	st := newStream(m, ss, info, r)
	st.server, st.mark, st.sends.member = s, m, s.member
	st.held = s.held(ss.Context())
	return st
}

// run calls the handler. The stream holds its permit until it is ready, or until the handler
// has returned, panicked or called runtime.Goexit.
func (s *serverStream) run(srv any, handler grpc.StreamHandler) error {
	outcome := admit.Ignored
	defer func() { s.leave(outcome) }()
	if s.rule.ReadyAfter > 0 {
		s.timer = time.AfterFunc(s.rule.ReadyAfter, func() { s.ready(false) })
	}
	err := handler(srv, s)
	s.sends.watch.Stop() // after this the watch cannot end the stream any more
	if why := s.sends.ended.Load(); why != nil {
		err = why // the status that the client gets, whatever the handler returned
	}
	if err != nil && s.rule.untilReady() && !s.isReady.Load() {
		outcome = s.outcomeOf(err)
	}
	return err
}

// leave ends the stream for its gate.
func (s *serverStream) leave(o admit.Outcome) {
	s.sends.watch.Stop()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.readying.Lock() // a StreamReady or timer that is under way still uses the permit
	s.isReady.Store(true)
	s.readying.Unlock()
	s.mark.unwind(false)
	if s.leaveHost != nil {
		s.leaveHost()
	}
	if s.held == nil || s.leaveHost != nil {
		s.permit.Release(o)
		return
	}
	s.permit.Finish(o)
	s.held.Keep(&s.permit, s.server.hold)
}

// outcomeOf maps the end of the set-up to an outcome for the limit.
func (s *serverStream) outcomeOf(err error) admit.Outcome {
	if s.server == nil || s.leaveHost != nil {
		return admit.Ignored
	}
	return s.server.outcome(s.ServerStream.Context(), &s.server.config, nil, s.method, &s.permit, err)
}

// Context implements grpc.ServerStream.
func (s *serverStream) Context() context.Context { return &s.ctx }

// SendMsg implements grpc.ServerStream.
func (s *serverStream) SendMsg(m any) error {
	err := s.send(m)
	if err == nil && s.rule.ReadyAtFirstMessage && !s.isReady.Load() {
		s.ready(true)
	}
	return err
}

func (s *serverStream) send(m any) error {
	if s.sends.bound <= 0 {
		return s.ServerStream.SendMsg(m)
	}
	s.sends.begin()
	defer s.sends.end(m) // a codec may panic
	return s.sends.explain(s.ServerStream.SendMsg(m))
}

// RecvMsg implements grpc.ServerStream.
func (s *serverStream) RecvMsg(m any) error { return s.sends.explain(s.ServerStream.RecvMsg(m)) }

// withoutGate is an interceptor for streams without a gate. It bounds their Sends.
func (c *config) withoutGate(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if _, subject := c.serverCall(ctx, info.FullMethod, info, nil); !subject {
		return handler(srv, ss)
	}
	stall := c.streams.find(ctx, info, c.stall).SendStall
	if stall <= 0 {
		return handler(srv, ss)
	}
	rule := StreamRule{SendStall: stall} // there is no permit
	return newStream(ctx, ss, info, rule).run(srv, handler)
}
