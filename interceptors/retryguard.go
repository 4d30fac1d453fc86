package interceptors

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// UnaryRetryGuard returns an interceptor against two layers of retries: an
// interceptor that retries, such as that of go-grpc-middleware, above the retry policy
// of a service config ([RetryConfig]). Three attempts of three are nine; and what
// stands above knows neither the delay for which a server asks nor the budget.
//
// Put the same interceptor at both ends of the chain:
//
//	guard := interceptors.UnaryRetryGuard(report)
//	grpc.WithChainUnaryInterceptor(guard, retry.UnaryClientInterceptor(), guard)
//
// Its outer place marks the call, so that its inner place sees what calls it more
// than once. If the last attempt ended with an error after which the method's retry
// policy lets gRPC itself try again, gRPC has done so as often as it should: then the
// inner place does not make another attempt, but returns that same error again. What
// stands above may go on to retry after other errors, and methods that have no
// policy. A call that is made a second time while the first is under way (hedging)
// passes.
//
// With one place only it can tell a retry only by the metadata that
// go-grpc-middleware's interceptor adds (x-retry-attempt); it reports that, but lets
// it pass, because it has not seen the error.
//
// report is called once for each target and full method name for which two layers
// were found (1024 of them, and once for all beyond, as "*"), in the goroutine of
// the call; it may be nil. A panic of it is dropped.
//
// The guard allocates a little for each call. It is safe for concurrent use. It
// cannot see grpc.WithDisableRetry: do not use it with that.
func UnaryRetryGuard(report func(target, method string)) grpc.UnaryClientInterceptor {
	return newRetryGuard(report).unary
}

// StreamRetryGuard is [UnaryRetryGuard] for streams. gRPC retries a stream until its
// first message comes, so what fails after that others may open again.
func StreamRetryGuard(report func(target, method string)) grpc.StreamClientInterceptor {
	return newRetryGuard(report).stream
}

func newRetryGuard(report func(target, method string)) *retryGuard {
	return &retryGuard{report: report, layers: newTable(func(p place) *layered { return &layered{place: p} })}
}

type retryGuard struct {
	report func(target, method string)
	layers *table[*layered]
}

// A layered is a method that two layers may retry.
type layered struct {
	place
	reported atomic.Bool
}

// A logicalCall is what the outer place knows of a call. Its own address and that of
// its guard keep it apart from others: a call that an interceptor in between makes
// with the same context is not this one.
type logicalCall struct {
	cc     *grpc.ClientConn
	method string

	mu      sync.Mutex // guards what follows
	retried error      // of the last attempt, if gRPC has retried after it
}

// attemptKey is the metadata in which go-grpc-middleware's retries count.
const attemptKey = "x-retry-attempt"

func (g *retryGuard) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	ctx, call, inner := g.enter(ctx, cc, method)
	if !inner {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	if err := call.last(); err != nil {
		g.found(cc, method)
		return err
	}
	err := invoker(ctx, method, req, reply, cc, opts...)
	call.ended(err)
	return err
}

func (g *retryGuard) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, call, inner := g.enter(ctx, cc, method)
	if !inner {
		return streamer(ctx, desc, cc, method, opts...)
	}
	if err := call.last(); err != nil {
		g.found(cc, method)
		return nil, err
	}
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		call.ended(err)
		return nil, err
	}
	return &guardedStream{ClientStream: s, call: call}, nil
}

// A guardedStream sees how a stream ends.
type guardedStream struct {
	grpc.ClientStream
	call *logicalCall
	came bool // a message
}

func (s *guardedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.came = true
	} else if !s.came {
		s.call.ended(err)
	}
	return err
}

// enter returns what the outer place knows of a call, and whether this is the inner one.
// At the outer place it is in the context that is returned.
func (g *retryGuard) enter(ctx context.Context, cc *grpc.ClientConn, method string) (context.Context, *logicalCall, bool) {
	if call, ok := ctx.Value(g).(*logicalCall); ok && call.cc == cc && call.method == method {
		return ctx, call, true
	}
	if len(metadata.ValueFromOutgoingContext(ctx, attemptKey)) > 0 && policyOf(cc, method) {
		g.found(cc, method)
	}
	return context.WithValue(ctx, g, &logicalCall{cc: cc, method: method}), nil, false
}

func (c *logicalCall) last() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retried
}

// ended notes that an attempt has ended with err, nil included.
func (c *logicalCall) ended(err error) {
	if err == nil || ours(err) || !retriedByGRPC(c.cc, c.method, err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retried = err
}

// policyOf reports whether gRPC retries the method at all.
func policyOf(cc *grpc.ClientConn, method string) bool {
	return cc != nil && cc.GetMethodConfig(method).RetryPolicy != nil
}

// retriedByGRPC reports whether gRPC retries the method after such an error.
func retriedByGRPC(cc *grpc.ClientConn, method string, err error) bool {
	if cc == nil {
		return false
	}
	policy := cc.GetMethodConfig(method).RetryPolicy
	return policy != nil && policy.RetryableStatusCodes[status.Code(err)]
}

// found reports two layers, once.
func (g *retryGuard) found(cc *grpc.ClientConn, method string) {
	l := g.layers.at(cc, method)
	if g.report == nil || l.reported.Swap(true) {
		return
	}
	defer func() { _ = recover() }()
	g.report(l.target, l.method)
}
