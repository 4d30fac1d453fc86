package throttle

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/callctx"
	"github.com/weir-go/weir/interceptors/internal/observe"
	"github.com/weir-go/weir/interceptors/internal/places"
	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the errors of [New].
var ErrConfig = errors.New("throttle: invalid configuration")

// ErrThrottled is found by errors.Is in the error of a call that a throttle refused.
var ErrThrottled = errors.New("weir: this client holds back: the server has refused too many of its calls")

var throttled = refusal.Delayed{Cause: ErrThrottled, Reason: "THROTTLED"}

// A Config configures [New]. Each zero field means its default.
type Config struct {
	// Name names the throttle in metrics and pages. The default is "default". It must come
	// from the program, never from a call.
	Name string
	// K is how many calls are sent for each one that the target accepts, once it refuses too
	// many. The default is 2; from 1 to 100. A lower K is more eager. At 1.1 the throttle
	// acts if a target refuses more than one call for each ten that it accepts. Less than 1.02
	// counts as 1.02. At 1 a few refusals would never be made up for.
	K float64
	// Evidence is how many calls in a row the target must refuse before the throttle refuses
	// any. The default is 10; at most a million. It takes more if the target accepts some.
	Evidence int
	// Window is the time without a refusal by the target after which the throttle forgets
	// everything. The default is 2 s; from 100 ms to an hour. A target that accepts nothing
	// is sent a call each quarter of it, with jitter.
	Window time.Duration
}

func (c *Config) defaults() {
	c.Name = cmp.Or(c.Name, "default")
	c.K = cmp.Or(c.K, 2)
	c.Evidence = cmp.Or(c.Evidence, 10)
	c.Window = cmp.Or(c.Window, 2*time.Second)
}

// leastK is the lowest K at which a target that hardly ever refuses is sent every call.
const leastK = 1.02

func (c *Config) validate() error {
	var bad check.Errors
	check.Between(&bad, "K", c.K, 1, 100)
	check.Between(&bad, "Evidence", c.Evidence, 1, 1_000_000)
	check.Between(&bad, "Window", c.Window, 100*time.Millisecond, time.Hour)
	return bad.Err(ErrConfig)
}

// A Throttle refuses calls to a target that refuses calls, so that refusing costs the target
// little. It sends about K times the calls that the target accepts. This is the bound of
// Beyer et al., "Site Reliability Engineering", 2016, chapter 21, "Client-Side Throttling".
//
// It keeps a balance instead of counts over a window. A call that the target refused costs
// one. A call that it accepted earns K-1, up to Evidence. While the balance is not negative,
// every call is sent. Below zero calls are sent with a probability, and each end of a call
// changes it by a factor. The balance does not change when one of K calls is accepted. So
// nothing is refused without evidence, and the throttle's own refusals are not evidence. A
// target that accepts nothing is sent two to four calls per Window/2, at any load. A few
// accepted calls are enough to send all calls again. A Window after the last refusal by the
// target, everything is forgotten.
//
// Refusals are UNAVAILABLE, and RESOURCE_EXHAUSTED of a gate that was full, as its
// errdetails.ErrorInfo says. Any other RESOURCE_EXHAUSTED is the quota of its caller, and
// refusing the calls of others would not help. All other ends are acceptances,
// DEADLINE_EXCEEDED too. Some calls are not counted:
//
//   - quotas;
//   - calls that their callers canceled, and calls with a context that had already ended;
//   - calls that a gate, breaker or throttle of this process refused further in;
//   - errors that gRPC itself makes of messages that are too large and of values that it
//     cannot send;
//   - errors without a status, which interceptors of this process made.
//
// Calls are counted for each method and class (see interceptors.ContextWithClass). A target
// that refuses one method, or the least important class, is sent less of that and no less of
// the rest. While one address of the target clearly accepts its calls, nothing is refused,
// because a throttle cannot choose the address.
//
// A refused call has UNAVAILABLE, the code of the refusals that it saves the target from. It
// has an errdetails.ErrorInfo with the reason THROTTLED, and an errdetails.RetryInfo with a
// delay that grows with the probability.
//
// A Throttle tells 1024 triples of a target (in its canonical form), a method and a class
// apart. Later ones share one more state. It is safe for concurrent use, never blocks and
// starts no goroutine. A successful call takes no lock. Use [New], and one Throttle for the
// unary and the stream interceptor. A nil and a zero Throttle let every call pass and count
// nothing.
type Throttle struct {
	cfg     Config
	epoch   time.Time
	draw    func() float64 // from 0 up to 1; replaced in tests
	targets *places.Table[*target]
}

// New returns a throttle that sends all calls until it has seen refusals. The error wraps
// ErrConfig and names every field that is out of range.
func New(c Config) (*Throttle, error) {
	c.defaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.K = max(c.K, leastK)
	t := &Throttle{cfg: c, epoch: time.Now(), draw: rand.Float64}
	t.targets = places.New(t.newTarget)
	return t, nil
}

// Name returns the throttle's name, empty for a nil or zero Throttle.
func (t *Throttle) Name() string {
	if t == nil {
		return ""
	}
	return t.cfg.Name
}

// inert reports whether the throttle is nil or zero, and so lets every call pass.
func (t *Throttle) inert() bool { return t == nil || t.targets == nil }

// jittered returns a duration between a half and one and a half times d.
func (t *Throttle) jittered(d time.Duration) time.Duration {
	return d/2 + time.Duration(t.draw()*float64(d))
}

func (t *Throttle) now() time.Duration { return time.Since(t.epoch) }

// TargetStats is a snapshot of the calls of one method and class to one target. It has the
// current state, and counters since the throttle was created.
type TargetStats struct {
	// Target is the target of the connections, Method the full method name, and Class the
	// String of an [admit.Class]. All three are "*" for the shared state, which counts
	// calls that came when there were 1024 triples and calls with names that are not valid
	// UTF-8.
	Target, Method, Class string
	// Probability is the current probability of a refusal, from 0 up to 1.
	Probability float64
	// Allowed counts the calls that were sent, Refused the calls that were refused.
	Allowed, Refused uint64
	// Accepted counts the calls that the target accepted, Rejected the calls that it
	// refused. Calls that are not counted are neither.
	Accepted, Rejected uint64
}

// Stats returns the targets, sorted by target, method and class. Call it for scrapes and
// pages, not for every call.
func (t *Throttle) Stats() []TargetStats {
	if t.inert() {
		return nil
	}
	var all []TargetStats
	for _, g := range t.targets.All() {
		s := g.stats()
		if s.Target != places.Rest || s.Allowed+s.Refused > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y TargetStats) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), cmp.Compare(x.Method, y.Method), cmp.Compare(x.Class, y.Class))
	})
	return all
}

// Unary returns an interceptor that refuses calls with the probability of the throttle. In
// a chain it stands outside of the gate and the breaker. gRPC's retries happen further in,
// and are one call. A call passes uncounted if its context has already ended.
//
// With a nil or zero throttle every call passes.
func Unary(t *Throttle) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if t.inert() || ctx.Err() != nil {
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		g := t.targets.AtClass(cc, method, callctx.Class(ctx).String())
		ticket, refused := g.enter()
		if refused != nil {
			return refused
		}
		err := invoker(ctx, method, req, reply, cc, ticket.witness.Options(opts)...)
		g.ended(ticket, answerOf(err))
		return err
	}
}

// Stream is [Unary] for streams. A stream is accepted once its headers or first message are
// seen, or when it ends with anything but a refusal.
//
// With a nil or zero throttle every call passes.
func Stream(t *Throttle) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		if t.inert() || ctx.Err() != nil {
			return streamer(ctx, desc, cc, method, opts...)
		}
		g := t.targets.AtClass(cc, method, callctx.Class(ctx).String())
		ticket, refused := g.enter()
		if refused != nil {
			return nil, refused
		}
		s := &stream{target: g, ticket: ticket}
		return observe.Stream(ctx, s, desc, cc, method, streamer, ticket.witness.Options(opts))
	}
}
