package interceptors

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/callctx"
	"github.com/weir-go/weir/interceptors/internal/latency"
	"github.com/weir-go/weir/interceptors/internal/places"
	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/interceptors/retry"
)

const (
	// classKey is the metadata that carries the class of a call.
	classKey = "weir-class"
	// permitKey is the metadata that carries the passes for the permits of a call; see
	// passes.
	permitKey = "weir-permit"
	// mostPermits is the largest number of passes that a call carries. If there are more,
	// the passes of the last services on the way are kept.
	mostPermits = 8
)

// WithPropagation makes a server pass on the class, the rest of the deadline and the permit
// of its calls. They reach the calls that a handler makes with the context of its call,
// through clients with ClientConfig.Propagate. A call that comes back to this server while the
// permit is held runs under that permit. Otherwise it would wait behind itself. At most 8
// such calls run under one permit, and altogether at most as many as the limit.
//
// trust decides whether to believe a class that a caller names. It is called for each call
// that names one. It returns the highest class that this caller may have, and whether to
// believe the caller at all. It must look at the result of authentication in the context. A
// believed class replaces the class of a classifier. With a nil trust, no caller is
// believed.
//
// If the handler fails with UNAVAILABLE or RESOURCE_EXHAUSTED because one of its own calls
// did, its caller is told not to retry. This holds until a call to the same method
// succeeds. The service next to the overload has retried already, and attempts would
// multiply if each service on the way retried. A handler can override this by sending its
// own grpc-retry-pushback-ms with grpc.SetTrailer.
//
// Propagation costs a few allocations for each call.
func WithPropagation(trust func(ctx context.Context) (highest admit.Class, trusted bool)) ServerOption {
	return serverOption(func(c *config) { c.propagates, c.trust = true, trust })
}

// WithRetriesBelow puts a call that is a retry (grpc-previous-rpc-attempts, see
// [retry.PreviousAttempts]) one class below its own. Under overload, first attempts are
// served first.
func WithRetriesBelow() ServerOption {
	return serverOption(func(c *config) { c.shedRetries = true })
}

// ContextWithClass returns a context for calls of a class. A client with ClientConfig.Propagate
// sends the class to the server. A client's gate uses it if no option sets a class.
func ContextWithClass(ctx context.Context, c admit.Class) context.Context {
	return callctx.WithClass(ctx, c)
}

// hopOf returns the mark of the call that a server with [WithPropagation] runs in this
// context, or nil.
func hopOf(ctx context.Context) *mark {
	m, _ := ctx.Value(callctx.HopKey{}).(*mark)
	return m
}

// arrive reads the metadata of a call. It returns the description of the call for the gate,
// and the passes that the call brought.
func (s *server) arrive(ctx context.Context, call admit.Call) (_ admit.Call, passes []string) {
	if s.trust != nil {
		if c, ok := namedClass(metadata.ValueFromIncomingContext(ctx, classKey)); ok {
			if highest, trusted := s.trust(ctx); trusted {
				call.Class = gateFuncs.Lower(s.gate, c, highest)
			}
		}
	}
	if s.shedRetries && retry.PreviousAttempts(ctx) > 0 {
		call.Class = gateFuncs.Below(s.gate, call.Class)
	}
	if s.propagates {
		passes = metadata.ValueFromIncomingContext(ctx, permitKey)
		passes = slices.DeleteFunc(passes, func(p string) bool { return !couldBePass(p) })
	}
	return call, passes[max(0, len(passes)-mostPermits):]
}

// namedClass reads the class in metadata.
func namedClass(values []string) (admit.Class, bool) {
	if len(values) != 1 {
		return 0, false
	}
	for c := range admit.Class(admit.MaxClasses) {
		if c.String() == values[0] {
			return c, true
		}
	}
	return 0, false
}

// advise tells the caller of a failed call not to retry, if the call failed because a
// service further on did.
func (s *server) advise(ctx context.Context, ss grpc.ServerStream, m *mark, err error) {
	if err == nil || m == nil || m.failed.Load() == nil || !retriable(err) {
		return
	}
	s.sendTrailer(ctx, ss, refusal.DontRetry)
}

// retriable reports whether clients usually retry after such an error.
func retriable(err error) bool {
	c := refusal.CodeOf(err)
	return c == codes.Unavailable || c == codes.ResourceExhausted
}

// unaryPropagation returns the interceptor for ClientConfig.Propagate. The margin is taken off
// the deadline of each call.
func unaryPropagation(margin time.Duration) grpc.UnaryClientInterceptor {
	p := newPropagation(margin)
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		from := hopOf(ctx)
		floor := p.floors.At(cc, method)
		ctx, cancel, err := p.depart(ctx, from, floor)
		if err != nil {
			return err
		}
		defer cancel()
		var waited waiting
		start := time.Now()
		err = invoker(context.WithValue(ctx, waitingKey{}, &waited), method, req, reply, cc, opts...)
		if err == nil {
			floor.Saw(time.Since(start) - waited.sum())
		}
		from.noteEnd(method, err)
		return err
	}
}

// streamPropagation is unaryPropagation for streams. The lifetime of a stream is not a latency,
// so a stream fails at once only if its deadline, less the margin, has passed.
func streamPropagation(margin time.Duration) grpc.StreamClientInterceptor {
	p := newPropagation(margin)
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		from := hopOf(ctx)
		ctx, cancel, err := p.depart(ctx, from, nil)
		if err != nil {
			return nil, err
		}
		opened := false
		defer func() { // also when an interceptor further in panics
			if !opened {
				cancel()
			}
		}()
		finished := grpc.OnFinish(func(err error) { cancel(); from.noteEnd(method, err) })
		stream, err := streamer(ctx, desc, cc, method, append(slices.Clip(opts), finished)...)
		if err != nil {
			from.noteEnd(method, err)
			return nil, err
		}
		opened = true
		return stream, nil
	}
}

// propagation is the part of a client that sends a class and passes.
type propagation struct {
	margin time.Duration
	floors *places.Table[*latency.Minimum]
}

func newPropagation(margin time.Duration) *propagation {
	return &propagation{margin: margin, floors: places.New(latency.NewMinimum)}
}

// depart returns the context of a call that leaves. It fails if the call has no time left, or
// less than floor allows. A nil floor allows any.
func (p *propagation) depart(ctx context.Context, from *mark, floor *latency.Minimum) (context.Context, context.CancelFunc, error) {
	cancel := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline) - p.margin
		if left <= 0 || floor != nil && !floor.Allows(left) {
			return nil, nil, refusal.ErrTooClose
		}
		if p.margin > 0 {
			ctx, cancel = callctx.Until(ctx, deadline.Add(-p.margin))
		}
	}
	class := callctx.Class(ctx)
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	if from != nil {
		class = from.inherited(class)
		md[permitKey] = from.passes()
	}
	md[classKey] = []string{class.String()}
	return metadata.NewOutgoingContext(ctx, md), cancel, nil
}

// A waiting is how long a call has waited for permits of this process.
type waiting struct{ ns atomic.Int64 }

type waitingKey struct{}

// waitingOf returns where to record how long a call waited, or nil.
func waitingOf(ctx context.Context) *waiting {
	w, _ := ctx.Value(waitingKey{}).(*waiting)
	return w
}

func (w *waiting) since(start time.Time) { w.ns.Add(int64(time.Since(start))) }

func (w *waiting) sum() time.Duration { return time.Duration(w.ns.Load()) }

// inherited returns the class of a call that is made for the served one. It is higher than c if
// calls of a higher class wait for a permit that the served call holds. They wait for the new
// call too, so it inherits their priority (Sha, Rajkumar and Lehoczky, "Priority Inheritance
// Protocols", IEEE Transactions on Computers 39(9), 1990, section III).
func (m *mark) inherited(c admit.Class) admit.Class {
	for ; m != nil; m = m.outer {
		if u, ok := gateFuncs.Urgent(m.member.gate); ok && !m.released.Load() {
			c = gateFuncs.Higher(m.member.gate, c, u)
		}
	}
	return c
}

// noteEnd records whether a call that was made for the served one failed because of an
// overload. A nil mark records nothing.
func (m *mark) noteEnd(method string, err error) {
	for ; m != nil; m = m.outer {
		for {
			was := m.failed.Load()
			if is := failedAfter(was, method, err); is == was || m.failed.CompareAndSwap(was, is) {
				break
			}
		}
	}
}

// mostFailed bounds the methods that are recorded as failed. A handler calls a few.
const mostFailed = 16

// failedAfter returns the failed methods after one more call, nil if there are none.
func failedAfter(was *[]string, method string, err error) *[]string {
	var methods []string
	if was != nil {
		methods = *was
	}
	known := slices.Contains(methods, method)
	switch {
	case err == nil && known && len(methods) == 1:
		return nil
	case err == nil && known:
		methods = slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return m == method })
	case err != nil && retriable(err) && !known && len(methods) < mostFailed:
		methods = append(slices.Clip(methods), method)
	default:
		return was
	}
	return &methods
}
