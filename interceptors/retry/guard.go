package retry

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/weir-go/weir/interceptors/internal/places"
)

// UnaryGuard returns an interceptor against two layers of retries: an
// interceptor that retries, such as that of go-grpc-middleware, above the retry policy
// of a service config ([Config]). Three attempts of three are nine; and what
// stands above knows neither the delay for which a server asks nor the budget.
//
// Put the same interceptor at both ends of the chain:
//
//	guard := retry.UnaryGuard(report)
//	grpc.WithChainUnaryInterceptor(guard, retry.UnaryClientInterceptor(), guard)
//
// Its outer place marks the call, so that its inner place sees what calls it more
// than once. If the last attempt ended with an error after which the method's retry
// policy lets gRPC itself try again, gRPC has done so as often as it should: then the
// inner place does not make another attempt, but returns that same error again. What
// stands above may go on to retry after other errors, methods that have no policy, and
// calls that gRPC does not retry: those that were answered with headers, and those of
// which more was sent than it keeps (256 KiB, or what grpc.MaxRetryRPCBufferSize says;
// the size is taken before compression). A call that is made a second time while the
// first is under way (hedging) passes.
//
// With one place only it can tell a retry only by the metadata that
// go-grpc-middleware's interceptor adds (x-retry-attempt); it reports that, but lets
// it pass, because it has not seen the error.
//
// report is called once for each target and full method name for which two layers
// were found (1024 of them, and once for all beyond, as "*"), in the goroutine of
// the call; it may be nil. A panic of it is dropped.
//
// The guard allocates a little for each call, and computes the size of its messages.
// It is safe for concurrent use. It
// cannot see grpc.WithDisableRetry: do not use it with that.
func UnaryGuard(report func(target, method string)) grpc.UnaryClientInterceptor {
	return newGuard(report).unary
}

// StreamGuard is [UnaryGuard] for streams.
func StreamGuard(report func(target, method string)) grpc.StreamClientInterceptor {
	return newGuard(report).stream
}

func newGuard(report func(target, method string)) *guard {
	return &guard{report: report, layers: places.New(func(p places.Place) *layered { return &layered{Place: p} })}
}

type guard struct {
	report func(target, method string)
	layers *places.Table[*layered]
}

// A layered is a method that two layers may retry.
type layered struct {
	places.Place
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

func (g *guard) unary(
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
	a := &attempt{call: call}
	a.sends(req)
	return invoker(ctx, method, req, reply, cc, a.options(opts)...)
}

func (g *guard) stream(
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
	a := &attempt{call: call}
	s, err := streamer(ctx, desc, cc, method, a.options(opts)...)
	if err != nil {
		return nil, err
	}
	return &guardedStream{s, a}, nil
}

// A guardedStream sees what is sent.
type guardedStream struct {
	grpc.ClientStream
	attempt *attempt
}

func (s *guardedStream) SendMsg(m any) error {
	s.attempt.sends(m)
	return s.ClientStream.SendMsg(m)
}

// An attempt is what the inner place sees of one.
type attempt struct {
	call   *logicalCall
	header metadata.MD  // nil as long as none has come
	sent   atomic.Int64 // bytes
	kept   int          // how many of them gRPC keeps, to send them again
}

// frameHeader is what gRPC puts before each message.
const frameHeader = 5

// sends counts a message. Of what is not protobuf it does not know the size.
func (a *attempt) sends(m any) {
	switch m := m.(type) {
	case proto.Message:
		a.sent.Add(int64(frameHeader + proto.Size(m)))
	case protoadapt.MessageV1:
		a.sent.Add(int64(frameHeader + proto.Size(protoadapt.MessageV2Of(m))))
	}
}

// options returns the call options with which gRPC tells what becomes of an attempt.
func (a *attempt) options(opts []grpc.CallOption) []grpc.CallOption {
	a.kept = 256 << 10 // of grpc-go 1.85
	for _, o := range opts {
		if o, ok := o.(grpc.MaxRetryRPCBufferSizeCallOption); ok {
			a.kept = o.MaxRetryRPCBufferSize
		}
	}
	return append(slices.Clip(opts), grpc.Header(&a.header), grpc.OnFinish(a.finished))
}

// finished is called by gRPC with the end of an attempt, after what it stored at header.
// It has retried, as far as it should, what was neither answered nor too much to keep.
func (a *attempt) finished(err error) {
	c := a.call
	if err == nil || a.header != nil || a.sent.Load() > int64(a.kept) || !retriedByGRPC(c.cc, c.method, err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retried = err
}

// enter returns what the outer place knows of a call, and whether this is the inner one.
// At the outer place it is in the context that is returned.
func (g *guard) enter(ctx context.Context, cc *grpc.ClientConn, method string) (context.Context, *logicalCall, bool) {
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
func (g *guard) found(cc *grpc.ClientConn, method string) {
	l := g.layers.At(cc, method)
	if g.report == nil || l.reported.Swap(true) {
		return
	}
	defer func() { _ = recover() }()
	g.report(l.Target, l.Method)
}
