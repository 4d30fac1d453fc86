package interceptors

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
)

// UnaryClient returns an interceptor that sends a call once it has a permit of the gate. The
// configuration of the gate decides whether a call waits or is refused. With admit.Block the
// caller waits for as long as its context allows, and so slows down to the rate of the
// server. The time and the outcome of the call, retries by gRPC included, are a sample for
// the limit.
//
// With a nil gate, or a wrong option, every call fails with INTERNAL. [Client] reports that
// at start.
func UnaryClient(g *admit.Gate, opts ...ClientOption) grpc.UnaryClientInterceptor {
	cfg := clientConfig(opts)
	if err := cfg.cannotWork(g); err != nil {
		return func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
			return err
		}
	}
	c := &client{config: cfg, member: join(g, unaryClient)}
	return c.unary
}

// StreamClient returns an interceptor that bounds the number of open streams. It takes a
// permit before it opens the stream. The permit is released when the stream is over, by
// gRPC's own definition: RecvMsg returned an error, io.EOF included, or the only response of
// a stream that has one; the context is done; SendMsg or Header failed for good; the
// connection was closed; or the stream could not be opened. A stream that is abandoned
// without any of these keeps its permit, as it keeps gRPC's buffers. Streams teach the limit
// nothing.
//
// With a nil gate, or a wrong option, every call fails with INTERNAL. [Client] reports that
// at start.
func StreamClient(g *admit.Gate, opts ...ClientOption) grpc.StreamClientInterceptor {
	cfg := clientConfig(opts)
	if err := cfg.cannotWork(g); err != nil {
		return func(
			context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, grpc.Streamer, ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			return nil, err
		}
	}
	c := &client{config: cfg, member: join(g, streamClient)}
	return c.stream
}

type client struct {
	config
	*member
}

func (c *client) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	call, subject := c.clientCall(ctx, method, nil, req)
	if !subject || c.inside(ctx) {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	permit, err := c.acquire(ctx, call)
	if err != nil {
		return c.refusals.Error(err)
	}
	m := c.sometimes(ctx)
	if m != nil {
		ctx = m
	}
	well, outcome := false, admit.Ignored
	defer func() {
		m.unwind(well)
		permit.Release(outcome)
	}()
	err = invoker(ctx, method, req, reply, cc, opts...)
	well = err == nil
	outcome = c.outcome(ctx, &c.config, cc, method, &permit, err)
	return err
}

// acquire takes a permit. It records how long that took if propagation asked for it.
func (c *client) acquire(ctx context.Context, call admit.Call) (admit.Permit, error) {
	if w := waitingOf(ctx); w != nil {
		defer w.since(time.Now())
	}
	return c.gate.Acquire(ctx, call)
}

func (c *client) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	call, subject := c.clientCall(ctx, method, desc, nil)
	if !subject || c.inside(ctx) {
		return streamer(ctx, desc, cc, method, opts...)
	}
	s := &clientStream{single: !desc.ServerStreams}
	var err error
	if s.permit, err = c.gate.Acquire(ctx, call); err != nil {
		return nil, c.refusals.Error(err)
	}
	s.mark = c.mark(ctx)
	s.forget = context.AfterFunc(ctx, s.release)
	opened := false
	defer func() { // also when an interceptor further in panics
		if !opened {
			s.over()
		}
	}()
	s.ClientStream, err = streamer(s.mark, desc, cc, method, append(slices.Clip(opts), grpc.OnFinish(s.finished))...)
	if err != nil {
		return nil, err
	}
	opened = true
	return s, nil
}

// A clientStream holds a permit until it is over. Several events show its end, and the first
// one counts, so that a streamer other than gRPC's works too. It never asks for the context
// of the stream, because gRPC does not retry a stream after that.
type clientStream struct {
	grpc.ClientStream
	mark   *mark
	permit admit.Permit
	forget func() bool // of context.AfterFunc
	single bool        // there is but one response
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil || s.single {
		s.over()
	}
	return err
}

func (s *clientStream) finished(error) { s.over() }

func (s *clientStream) over() {
	s.forget()
	s.release()
}

func (s *clientStream) release() {
	s.mark.unwind(false)
	s.permit.Release(admit.Ignored)
}
