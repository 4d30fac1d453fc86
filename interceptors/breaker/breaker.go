package breaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/observe"
	"github.com/weir-go/weir/interceptors/internal/places"
	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the errors of [New].
var ErrConfig = errors.New("breaker: invalid configuration")

// ErrOpen is found by errors.Is in the error of a call that a breaker refused.
var ErrOpen = errors.New("weir: this client's breaker is open: too many calls of this method have failed")

var circuitOpen = refusal.Delayed{Cause: ErrOpen, Reason: "CIRCUIT_OPEN"}

// A Config configures [New]. Each zero field means its default.
type Config struct {
	// Name names the breaker in metrics and pages. The default is "default". It must come
	// from the program, never from a call.
	Name string
	// Window is how far back calls count, in steps of a tenth of it. The default is 10 s;
	// from 10 ms to an hour.
	Window time.Duration
	// MinCalls is how many calls within Window a circuit needs before it can open. The
	// default is 20; at most a million.
	MinCalls int
	// FailureRatio is the share of failed calls above which a circuit opens. The default is
	// 0.5; more than 0 and at most 1, which means all. A circuit opens if all calls within
	// Window failed, or if more failed than chance explains (two standard deviations: 15 of
	// 20 or 61 of 100 calls by default). It stays closed while one address of the target is
	// not above the ratio.
	FailureRatio float64
	// SlowCall is the time after which a successful unary call counts as a failure. With
	// the default, 0, no call is too slow. Streams are never slow.
	SlowCall time.Duration
	// OpenFor is the mean time for which a circuit stays open. The default is 5 s; from 1 ms
	// to an hour. Each time is drawn from half to one and a half times OpenFor, so that
	// clients do not return together.
	OpenFor time.Duration
	// Probes is how many calls a half-open circuit sends to each address that it has seen
	// (up to 16 of them), and how many may be in flight at once. The circuit closes once the
	// failed probes of one address cannot exceed FailureRatio any more. It opens again once
	// no address is left for which that is possible. The default is 3; at most 1000.
	Probes int
}

func (c *Config) defaults() {
	c.Name = cmp.Or(c.Name, "default")
	c.Window = cmp.Or(c.Window, 10*time.Second)
	c.MinCalls = cmp.Or(c.MinCalls, 20)
	c.FailureRatio = cmp.Or(c.FailureRatio, 0.5)
	c.OpenFor = cmp.Or(c.OpenFor, 5*time.Second)
	c.Probes = cmp.Or(c.Probes, 3)
}

func (c *Config) validate(opts []Option) error {
	var bad check.Errors
	for i, o := range opts {
		bad.That(o != nil, "option %d: got nil, want an Option", i)
	}
	check.Between(&bad, "Window", c.Window, 10*time.Millisecond, time.Hour)
	check.Between(&bad, "MinCalls", c.MinCalls, 1, 1_000_000)
	bad.That(c.FailureRatio > 0 && c.FailureRatio <= 1, "FailureRatio: got %v, want more than 0 and at most 1", c.FailureRatio)
	bad.That(c.SlowCall >= 0, "SlowCall: got %v, want 0 (off) or more", c.SlowCall)
	check.Between(&bad, "OpenFor", c.OpenFor, time.Millisecond, time.Hour)
	check.Between(&bad, "Probes", c.Probes, 1, 1000)
	return bad.Err(ErrConfig)
}

// A State says which calls a circuit sends: all if it is Closed, a few if it is HalfOpen, and
// none if it is Open.
type State uint8

// The states.
const (
	// Closed sends all calls.
	Closed State = iota
	// HalfOpen sends some calls, the probes, to see how they end.
	HalfOpen
	// Open sends no call.
	Open
)

// String returns "closed", "half-open" or "open".
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	default:
		return fmt.Sprintf("State(%d)", uint8(s))
	}
}

// An Option configures a [Breaker].
type Option interface{ apply(*Breaker) }

type option func(*Breaker)

func (o option) apply(b *Breaker) { o(b) }

// WithHooks adds a set of hooks. It can be used several times; all sets are called.
func WithHooks(h Hooks) Option {
	return option(func(b *Breaker) { b.hooks = append(b.hooks, h) })
}

// A Breaker stops calls to methods that fail, and probes them from time to time until they
// recover. It has a circuit for each target (in its canonical form) and full method name.
// It tells 1024 of them apart. Later ones share one more circuit, as do names that are not
// valid UTF-8. So a program that forwards arbitrary methods needs a breaker of its own for
// them. A Breaker is safe for concurrent use, never blocks and starts no goroutine. Use
// [New], and one Breaker for the unary and the stream interceptor. A nil and a zero Breaker
// let every call pass and count nothing.
//
// Each circuit is one of gobreaker (github.com/sony/gobreaker, after Nygard, "Release It!",
// 2007). A closed circuit counts calls when they end. It opens when enough of them failed
// within the window. Then it refuses all calls with UNAVAILABLE, an errdetails.ErrorInfo
// with the reason CIRCUIT_OPEN, and an errdetails.RetryInfo with the time that is left.
// After that time the next calls are probes. If a probe has not ended within OpenFor,
// another one is sent. So calls that hang do not keep a circuit half-open.
//
// An interceptor cannot choose the server for a call. Refusing is right only if no server of
// the target serves the method. Once calls fail, the circuit counts them for each address
// (grpc.Peer), and stays closed as long as one address serves. If one of several instances
// fails, a breaker costs nothing, and the balancer or a retry must avoid that instance.
// Sometimes the address tells nothing (connections in memory to a target that may have
// several). Then MinCalls calls in a row must fail. Calls often fail sooner than they
// succeed. So before a circuit opens, the calls in flight get the time that the method
// usually takes, or a second.
//
// Failures are UNAVAILABLE, INTERNAL, and DEADLINE_EXCEEDED. If the caller gave up, the
// call is a failure only if it had a fair time. A fair time is twice the mean of the
// successful calls of the method, or that mean plus four mean deviations if that is more.
// This applies to deadlines and, in unary calls, to cancellation by the caller. After a
// second without any answer, the mean alone is a fair time. A method that has never
// answered has no mean. Its calls count if they lasted for a second. After a second without
// any answer, canceled calls count too, and calls with at least half of the longest
// deadline. After ten seconds all of them count. Excluded are
//
//   - CANCELED and DEADLINE_EXCEEDED of all other calls that their callers gave up, and
//     of streams that had been answered;
//   - all refusals by a weir, in this process or another (the domain in the ErrorInfo is
//     "weir", or the text is that of a tap). A server that refuses its excess is healthy,
//     and a breaker would stop the calls that it can serve. Package throttle is for
//     refusals;
//   - RESOURCE_EXHAUSTED, which is about the caller's quota, or made by gRPC for a message
//     that is too large;
//   - INTERNAL and UNAUTHENTICATED that gRPC itself makes of values that cannot be sent,
//     such as a string that is not UTF-8, bad or too large metadata, or credentials that
//     fail. grpc-go's text identifies them;
//   - errors without a status, which an interceptor of this process made.
//
// All other ends count as success, because the server answered. This includes DATA_LOSS,
// which is about the data, and UNKNOWN, which grpc-go makes of an error of a handler without
// a code. [WithVerdict] replaces these rules.
type Breaker struct {
	cfg       Config
	hooks     []Hooks
	verdictOf func(error) Verdict
	epoch     time.Time
	jittered  func(time.Duration) time.Duration // replaced in tests
	circuits  *places.Table[*circuit]
}

// New returns a breaker with all circuits closed. The error wraps ErrConfig and names every
// field that is out of range, and each nil option.
func New(c Config, opts ...Option) (*Breaker, error) {
	c.defaults()
	if err := c.validate(opts); err != nil {
		return nil, err
	}
	b := &Breaker{cfg: c, epoch: time.Now(), jittered: jittered}
	for _, o := range opts {
		o.apply(b)
	}
	b.circuits = places.New(b.newCircuit)
	return b, nil
}

// jittered returns a duration between a half and one and a half times d.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }

// Name returns the breaker's name, empty for a nil or zero Breaker.
func (b *Breaker) Name() string {
	if b == nil {
		return ""
	}
	return b.cfg.Name
}

// inert reports whether the breaker is nil or zero, and so lets every call pass.
func (b *Breaker) inert() bool { return b == nil || b.circuits == nil }

// CircuitStats is a snapshot of one circuit. It has the current state, and counters since
// the circuit was created.
type CircuitStats struct {
	// Target and Method name the target and the full method of the calls. Both are "*" for
	// the shared circuit, which counts calls that came when there were 1024 circuits and
	// calls with names that are not valid UTF-8.
	Target, Method string
	// State is the current state. An open circuit becomes half-open with the first call
	// after its time.
	State State
	// Allowed counts the calls that were sent, Refused the calls that were refused.
	Allowed, Refused uint64
	// Failed counts the calls that were sent and failed, slow ones included.
	Failed uint64
	// Opened counts how often the circuit opened, also again after failed probes.
	Opened uint64
	// OpenedAgo is the time since the circuit opened last. It is 0 if Opened is 0.
	OpenedAgo time.Duration
	// ProbeIn is the time until an open circuit may send a probe. It is 0 in other states.
	ProbeIn time.Duration
}

// Stats returns the circuits, sorted by target and method. Call it for scrapes and pages,
// not for every call.
func (b *Breaker) Stats() []CircuitStats {
	if b.inert() {
		return nil
	}
	var all []CircuitStats
	for _, c := range b.circuits.All() {
		s := c.stats()
		if s.Target != places.Rest || s.Allowed+s.Refused > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y CircuitStats) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), cmp.Compare(x.Method, y.Method))
	})
	return all
}

func (b *Breaker) now() time.Duration { return time.Since(b.epoch) }

// Unary returns an interceptor that refuses calls while their circuit is open. In a chain
// it stands inside of the throttle and the gate, so that the wait for a permit does not
// look like a slow server. gRPC's retries happen further in, and are one call. A call
// passes uncounted if its context has already ended.
//
// With a nil or zero breaker every call passes.
func Unary(b *Breaker) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if b.inert() || ctx.Err() != nil {
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		c := b.circuits.At(cc, method)
		began := b.now()
		granted, refused := c.enter(began)
		verdict := Excluded
		defer func() { // also when something further in panics
			if refused == nil {
				c.leave(granted, verdict)
			}
			c.tell()
		}()
		c.tell()
		if refused != nil {
			return refused
		}
		c.gives(ctx)
		err := invoker(ctx, method, req, reply, cc, granted.witness.Options(opts)...)
		if err == nil {
			c.learn(began)
		}
		v := c.verdict(ctx, began, err)
		if v == Healthy && b.cfg.SlowCall > 0 && b.now()-began > b.cfg.SlowCall {
			v = Unwell
		}
		verdict = v
		return err
	}
}

// Stream is [Unary] for streams. A stream counts as a success once its headers or first message
// were seen, because it may last for ever. Otherwise it counts when it ends, by its status, or
// when it cannot be opened. A stream that was answered and then fails counts as a failure, too.
// For a probe only the first of the two counts.
//
// With a nil or zero breaker every call passes.
func Stream(b *Breaker) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		if b.inert() || ctx.Err() != nil {
			return streamer(ctx, desc, cc, method, opts...)
		}
		c := b.circuits.At(cc, method)
		began := b.now()
		granted, refused := c.enter(began)
		if refused != nil {
			c.tell()
			return nil, refused
		}
		c.gives(ctx)
		s := &stream{circuit: c, ticket: granted, began: began, ctx: ctx}
		told := false
		defer func() { // a hook may end the goroutine
			if !told {
				s.Abandoned()
			}
		}()
		c.tell()
		told = true
		return observe.Stream(ctx, s, desc, cc, method, streamer, granted.witness.Options(opts))
	}
}
