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

// UnaryGuard returns an interceptor that stops a second layer of retries. There are two
// layers if an interceptor that retries, such as go-grpc-middleware's, stands above the
// retry policy of a service config ([Config]). Two layers of three attempts each make nine.
// The outer layer knows neither the delay of a server nor the budget.
//
// Put the same interceptor at both ends of the chain:
//
//	guard := retry.UnaryGuard(report)
//	grpc.WithChainUnaryInterceptor(guard, middleware.UnaryClientInterceptor(), guard)
//
// The outer one marks the call, so the inner one sees a second attempt. If the last attempt
// ended with an error that gRPC's own policy retries, gRPC has already retried it as often
// as it should. The inner one then returns that error again, and sends nothing. The outer
// layer may still retry other errors, methods without a policy, and calls that gRPC does not
// retry. gRPC does not retry calls that were answered with headers, and calls with more data
// than it keeps (256 KiB, or grpc.MaxRetryRPCBufferSize, before compression). A second call
// that is made while the first is in flight (hedging) passes.
//
// If the guard is in the chain only once, it knows a retry only by the metadata of
// go-grpc-middleware's interceptor (x-retry-attempt). It reports the retry but lets it pass,
// because it has not seen the error.
//
// report is called once for each target and full method name with two layers (1024 of them,
// and once for all others, as "*"), in the goroutine of the call. It may be nil. A panic of
// it is dropped.
//
// The guard allocates a little for each call, and computes the size of its messages. It is
// safe for concurrent use. It cannot see grpc.WithDisableRetry, so do not use the two
// together.
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

// A logicalCall is the outer guard's record of a call. The guard, the connection and the
// method identify it, because an interceptor in between may make other calls with the same
// context.
type logicalCall struct {
	cc     *grpc.ClientConn
	method string

	mu      sync.Mutex // guards the fields below
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

// A guardedStream counts the bytes that are sent.
type guardedStream struct {
	grpc.ClientStream
	attempt *attempt
}

func (s *guardedStream) SendMsg(m any) error {
	s.attempt.sends(m)
	return s.ClientStream.SendMsg(m)
}

// An attempt is the inner guard's record of an attempt.
type attempt struct {
	call   *logicalCall
	header metadata.MD  // nil as long as none has come
	sent   atomic.Int64 // bytes
	kept   int          // how many of them gRPC keeps, to send them again
}

// frameHeader is the length of the header that gRPC puts before each message, in bytes.
const frameHeader = 5

// sends counts a message. It does not know the size of a message that is not protobuf.
func (a *attempt) sends(m any) {
	switch m := m.(type) {
	case proto.Message:
		a.sent.Add(int64(frameHeader + proto.Size(m)))
	case protoadapt.MessageV1:
		a.sent.Add(int64(frameHeader + proto.Size(protoadapt.MessageV2Of(m))))
	}
}

// options returns call options that report the end of the attempt.
func (a *attempt) options(opts []grpc.CallOption) []grpc.CallOption {
	a.kept = keptBytes(opts)
	return append(slices.Clip(opts), grpc.Header(&a.header), grpc.OnFinish(a.finished))
}

// keptBytes returns how many bytes of a call gRPC keeps, to send them again.
func keptBytes(opts []grpc.CallOption) int {
	kept := 256 << 10 // of grpc-go 1.85
	for _, o := range opts {
		if o, ok := o.(grpc.MaxRetryRPCBufferSizeCallOption); ok {
			kept = o.MaxRetryRPCBufferSize
		}
	}
	return kept
}

// finished is called by gRPC at the end of an attempt, after it stored the header. gRPC has
// retried an attempt that was not answered and not too large to keep.
func (a *attempt) finished(err error) {
	c := a.call
	if err == nil || a.header != nil || a.sent.Load() > int64(a.kept) || !retriedByGRPC(c.cc, c.method, err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retried = err
}

// enter returns the outer guard's record of the call, and whether this is the inner guard.
// At the outer guard, the returned context holds the record.
func (g *guard) enter(ctx context.Context, cc *grpc.ClientConn, method string) (context.Context, *logicalCall, bool) {
	if call, ok := ctx.Value(g).(*logicalCall); ok && call.cc == cc && call.method == method {
		return ctx, call, true
	}
	if policyOf(cc, method) {
		if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get(attemptKey)) > 0 {
			g.found(cc, method)
		}
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
