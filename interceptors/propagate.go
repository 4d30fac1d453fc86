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
	// classKey is the metadata in which a call's class travels.
	classKey = "weir-class"
	// permitKey is the metadata in which travel the passes for permits that are
	// held for a call: see pass.
	permitKey = "weir-permit"
	// mostPermits is how many of them travel: of the last services on the way.
	mostPermits = 8
)

// WithPropagation lets what a call is travel on: clients with [UnaryPropagation]
// that the handler calls with its own context pass on the call's class, what is
// left of its deadline, and that it holds a permit here. A call that comes back
// here while it does runs under the same permit instead of waiting behind
// itself: at most 8 such calls for each permit at once, and all together at most
// as many as the limit.
//
// trust says whose class to believe: it is asked for a call that names one, and
// returns whether to believe its caller, and the highest class to believe. It
// must look at what authentication has put into the context. The class that is
// believed replaces what a classifier says. A nil trust believes nobody.
//
// When the handler fails with UNAVAILABLE or RESOURCE_EXHAUSTED after a call of its
// own did, and none to the same method succeeded since, its caller is told not to
// retry: the service next to what was overloaded has tried, and if every service
// on the way tried again the attempts would multiply. A handler that knows better
// sends a grpc-retry-pushback-ms of its own with grpc.SetTrailer; that stands.
//
// It costs some allocations a call.
func WithPropagation(trust func(ctx context.Context) (highest admit.Class, trusted bool)) ServerOption {
	return serverOption(func(c *config) { c.propagates, c.trust = true, trust })
}

// WithRetriesBelow makes a call that is another attempt (grpc-previous-rpc-attempts,
// see [retry.PreviousAttempts]) one of the class below its own: under overload, first
// attempts come first.
func WithRetriesBelow() ServerOption {
	return serverOption(func(c *config) { c.shedRetries = true })
}

// ContextWithClass returns a context for calls of a class. [UnaryPropagation] and
// [StreamPropagation] tell the server, and a client's gate uses it where no
// option says otherwise.
func ContextWithClass(ctx context.Context, c admit.Class) context.Context {
	return callctx.WithClass(ctx, c)
}

// hopOf returns the mark of the call that a server with [WithPropagation] runs
// in this context, or nil.
func hopOf(ctx context.Context) *mark {
	m, _ := ctx.Value(callctx.HopKey{}).(*mark)
	return m
}

// arrive reads what a call brought with it: what the gate is told of it then, and
// the passes.
func (s *server) arrive(ctx context.Context, call admit.Call) (_ admit.Call, passes []string) {
	if s.trust != nil {
		if c, ok := namedClass(metadata.ValueFromIncomingContext(ctx, classKey)); ok {
			if highest, trusted := s.trust(ctx); trusted {
				call.Class = s.gate.Lower(c, highest)
			}
		}
	}
	if s.shedRetries && retry.PreviousAttempts(ctx) > 0 {
		call.Class = s.gate.Below(call.Class)
	}
	if s.propagates {
		passes = metadata.ValueFromIncomingContext(ctx, permitKey)
		passes = slices.DeleteFunc(passes, func(p string) bool { return !couldBePass(p) })
	}
	return call, passes[max(0, len(passes)-mostPermits):]
}

// namedClass reads what metadata says of a class.
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

// advise tells the caller of a call that failed because of one further on not to
// retry.
func (s *server) advise(ctx context.Context, ss grpc.ServerStream, m *mark, err error) {
	if err == nil || m == nil || m.failed.Load() == nil || !retriable(err) {
		return
	}
	s.sendTrailer(ctx, ss, refusal.DontRetry)
}

// retriable reports whether an error is one of those that gRPC is usually told to
// retry.
func retriable(err error) bool {
	c := refusal.CodeOf(err)
	return c == codes.Unavailable || c == codes.ResourceExhausted
}

// A PropagationConfig configures [UnaryPropagation] and [StreamPropagation]. Its zero value
// has the defaults.
type PropagationConfig struct {
	// DeadlineMargin is taken off the deadline of each call, to leave time for the work
	// that follows its answer. The default is 0. A negative margin means 0.
	DeadlineMargin time.Duration
}

// UnaryPropagation returns an interceptor that tells servers with
// [WithPropagation] the class of a call and for which permits of its caller it is
// made. Give it to clients of services of one's own, and to no others: who is
// told of a permit may use it as long as it is held. It stands outside of the
// others.
//
// The class is that of [ContextWithClass] or of the call that is being served;
// and higher than that if calls of a higher class wait for the permit which that
// one holds: they wait for this call, too, so it must not queue as if nobody did
// (Sha, Rajkumar and Lehoczky, "Priority Inheritance Protocols", IEEE
// Transactions on Computers 39(9), 1990, section III).
//
// A call whose remaining time, less the margin, is not more than the shortest that
// a successful call of its method took in the last 10 to 20 seconds is not sent:
// it fails at once with DEADLINE_EXCEEDED. The time for which calls waited in
// [UnaryClient] is left out: whether there is time to wait is for the gate to say.
func UnaryPropagation(c PropagationConfig) grpc.UnaryClientInterceptor {
	p := newPropagation(c)
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		from := hopOf(ctx)
		floor := p.floors.At(cc, method)
		ctx, cancel, err := p.depart(ctx, from, floor.Shortest())
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

// StreamPropagation is [UnaryPropagation] for streams. A stream's lifetime is not
// a latency: a stream is not sent only if its deadline, less the margin, has
// passed.
func StreamPropagation(c PropagationConfig) grpc.StreamClientInterceptor {
	p := newPropagation(c)
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		from := hopOf(ctx)
		ctx, cancel, err := p.depart(ctx, from, 0)
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

type propagation struct {
	margin time.Duration
	floors *places.Table[*latency.Minimum]
}

func newPropagation(c PropagationConfig) *propagation {
	return &propagation{margin: max(c.DeadlineMargin, 0), floors: places.New(latency.NewMinimum)}
}

// depart returns the context with which a call leaves that takes at least so long.
func (p *propagation) depart(ctx context.Context, from *mark, shortest time.Duration) (context.Context, context.CancelFunc, error) {
	cancel := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline) - p.margin
		if left <= shortest {
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

// waitingOf returns where to note how long a call waited, or nil if nobody wants to know.
func waitingOf(ctx context.Context) *waiting {
	w, _ := ctx.Value(waitingKey{}).(*waiting)
	return w
}

func (w *waiting) since(start time.Time) { w.ns.Add(int64(time.Since(start))) }

func (w *waiting) sum() time.Duration { return time.Duration(w.ns.Load()) }

// inherited returns the class of a call that is made for the one that is served.
func (m *mark) inherited(c admit.Class) admit.Class {
	for ; m != nil; m = m.outer {
		if u, ok := m.member.gate.Urgent(); ok && !m.released.Load() {
			c = m.member.gate.Higher(c, u)
		}
	}
	return c
}

// noteEnd remembers that a call which was made for the one that is served failed
// because something was overloaded. A nil mark is none.
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

// mostFailed is of how many methods it is remembered that they failed. A handler calls
// a few.
const mostFailed = 16

// failedAfter returns what has failed, nil for nothing, after one more call.
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
