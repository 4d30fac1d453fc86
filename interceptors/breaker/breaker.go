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

// ErrOpen is what errors.Is finds in the error of a call that a breaker
// refused.
var ErrOpen = errors.New("weir: this client's breaker is open: too many calls of this method have failed")

var circuitOpen = refusal.Retreat{Cause: ErrOpen, Reason: "CIRCUIT_OPEN"}

// A Config configures [New]. Every zero field means its default.
type Config struct {
	// Name names the breaker in metrics and pages; default "default". Choose it
	// in the program, never from a call.
	Name string
	// Window is how far back calls count, in steps of a tenth of it; default 10 s,
	// from 10 ms to an hour.
	Window time.Duration
	// MinCalls is how many calls within Window it takes to judge; default 20, at
	// most a million.
	MinCalls int
	// FailureRatio is the share of failed calls above which a circuit opens; default 0.5,
	// more than 0 and at most 1, which means all. It is exceeded when all calls within
	// Window failed, or more than chance explains (two standard deviations: 15 of 20 or
	// 61 of 100 calls by default). While one address of the target is not above it, the
	// circuit stays closed.
	FailureRatio float64
	// SlowCall makes a unary call that went well but took longer than this a
	// failure; default 0: however slow, it went well. Streams are never slow.
	SlowCall time.Duration
	// OpenFor is how long a circuit stays open on average; default 5 s, from 1 ms
	// to an hour. Each time anew it is between a half and one and a half times
	// that, so that clients do not come back together.
	OpenFor time.Duration
	// Probes is how many calls are let through after that to each address that was seen
	// (up to 16 of them), and at most how many at once. The circuit closes when the share
	// of failed probes to one address cannot exceed FailureRatio any more; it opens again
	// when no address is left of which that may come true. Default 3, at most 1000.
	Probes int
}

func (c *Config) defaults() {
	c.Name = check.Or(c.Name, "default")
	c.Window = check.Or(c.Window, 10*time.Second)
	c.MinCalls = check.Or(c.MinCalls, 20)
	c.FailureRatio = check.Or(c.FailureRatio, 0.5)
	c.OpenFor = check.Or(c.OpenFor, 5*time.Second)
	c.Probes = check.Or(c.Probes, 3)
}

func (c *Config) validate(opts []Option) error {
	var bad check.Errors
	for i, o := range opts {
		bad.That(o != nil, "option %d: got nil, want a Option", i)
	}
	check.Between(&bad, "Window", c.Window, 10*time.Millisecond, time.Hour)
	check.Between(&bad, "MinCalls", c.MinCalls, 1, 1_000_000)
	bad.That(c.FailureRatio > 0 && c.FailureRatio <= 1, "FailureRatio: got %v, want more than 0 and at most 1", c.FailureRatio)
	bad.That(c.SlowCall >= 0, "SlowCall: got %v, want 0 (off) or more", c.SlowCall)
	check.Between(&bad, "OpenFor", c.OpenFor, time.Millisecond, time.Hour)
	check.Between(&bad, "Probes", c.Probes, 1, 1000)
	return bad.Err(ErrConfig)
}

// A State is what a circuit does with calls.
type State uint8

const (
	// Closed lets all calls pass.
	Closed State = iota
	// HalfOpen lets some pass, to see how they end.
	HalfOpen
	// Open lets none pass.
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

// A Option configures a [Breaker].
type Option interface{ apply(*Breaker) }

type option func(*Breaker)

func (o option) apply(b *Breaker) { o(b) }

// WithHooks adds hooks. Each use adds a set; all of them are called.
func WithHooks(h Hooks) Option {
	return option(func(b *Breaker) { b.hooks = append(b.hooks, h) })
}

// A Breaker stops calls to methods that are unwell, and tries now and then whether
// they have recovered. It has a circuit for each target (in its canonical form) and
// full method name. It tells 1024 of them apart; later ones, and those that are not
// valid UTF-8, share one more circuit, so a program that forwards arbitrary methods
// wants a breaker of its own for that. It is safe for concurrent use, never blocks and
// starts no goroutine. Use [New], and one Breaker for the unary and the stream
// interceptor. A nil and a zero Breaker let every call pass and count nothing.
//
// Each circuit is one of gobreaker (github.com/sony/gobreaker, after Nygard,
// "Release It!", 2007). A closed circuit counts calls when they end. It opens when
// enough of them failed within the window; then it refuses all calls with
// UNAVAILABLE, errdetails.ErrorInfo with the reason CIRCUIT_OPEN, and
// errdetails.RetryInfo with the time that is left. After that the next calls are
// probes. A probe that has not ended within OpenFor lets another one go, so calls
// that hang do not keep a circuit half-open for ever.
//
// An interceptor cannot choose the server that a call goes to, so refusing is right only
// if no server of the target serves the method. As soon as calls fail, the circuit counts
// them for each address (grpc.Peer), and stays closed as long as one address is well; so
// where one of several instances fails, a breaker costs nothing, and the balancer or a
// retry has to avoid that instance. Where the address tells nothing (connections in
// memory to a target that may have several), as many calls as MinCalls have to fail in a
// row. Calls often fail sooner than they succeed, so calls that are under way get the time
// that the method usually takes, or a second, before a circuit opens.
//
// Failures are what says that the server is unwell: UNAVAILABLE, INTERNAL, and
// DEADLINE_EXCEEDED. A call whose caller gave up is a failure only if it was given a fair
// time: twice the mean of the method's calls that went well, or that mean and four mean
// deviations, whichever is more. This holds for deadlines and, in unary calls, for callers
// that cancel. Once nothing was answered for a second, the mean alone is fair. Of a method
// that never answered, calls count that lasted for a second; and, once nothing was
// answered for a second, calls that were canceled and those with at least half of the
// longest deadline. Excluded are
//
//   - CANCELED and DEADLINE_EXCEEDED of all other calls whose caller gave up, and of
//     streams that had been answered;
//   - all that a weir refused, in this process or another (the domain in the
//     ErrorInfo is "weir", or it is the text of a [interceptors.Tap]): a server that refuses what
//     is too much for it does well, and a breaker that stops the rest would waste it.
//     [throttle.Throttle] is the answer to refusals;
//   - RESOURCE_EXHAUSTED: it is about the caller's quota, or made by gRPC itself for a
//     message that is too large;
//   - the INTERNAL and UNAUTHENTICATED that gRPC itself makes of what cannot be sent:
//     a string that is not UTF-8, bad or too large metadata, credentials that fail. It
//     is told by grpc-go's text;
//   - errors without a status: an interceptor of this process made them.
//
// Everything else counts as success, because the server answered. This includes
// DATA_LOSS, which is about the data, and UNKNOWN, which grpc-go makes of every error
// that a handler returned without giving it a code. [WithVerdict] changes that.
type Breaker struct {
	cfg       Config
	hooks     []Hooks
	verdictOf func(error) Verdict
	epoch     time.Time
	jittered  func(time.Duration) time.Duration // replaced in tests
	circuits  *places.Table[*circuit]
}

// New returns a breaker whose circuits are all closed. It returns an error
// that wraps ErrConfig and names every field that is out of range, and each nil option.
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

// inert reports whether the breaker lets every call pass: it is nil or zero.
func (b *Breaker) inert() bool { return b == nil || b.circuits == nil }

// CircuitStats is what one circuit does now and has done since it was made.
type CircuitStats struct {
	// Target and Method are those of the calls, or both "*" for the circuit that
	// those share which came when there were 1024 or are not valid UTF-8.
	Target, Method string
	// State is the state. An open circuit becomes half-open with the first call
	// that comes after its time.
	State State
	// Allowed counts the calls that were let through, Refused those that were not.
	Allowed, Refused uint64
	// Failed counts the calls that were let through and failed, slow ones included.
	Failed uint64
	// Opened counts how often the circuit opened, also anew after a probe failed.
	Opened uint64
}

// Stats returns the circuits, sorted by target and method. It is meant for scrapes
// and pages, not for every call.
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

// Unary returns an interceptor that refuses calls while their circuit is
// open. In a chain it stands inside of [throttle.Unary] and [interceptors.UnaryClient], so that the
// time for which a call waits for a permit is not the server's slowness; retries by
// gRPC happen inside of it and are one call. A call whose context has ended already
// passes, uncounted.
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
		pass, refused := c.enter(began)
		verdict := Excluded
		defer func() { // also when something further in panics
			if refused == nil {
				c.leave(pass, verdict)
			}
			c.tell()
		}()
		c.tell()
		if refused != nil {
			return refused
		}
		c.gives(ctx)
		err := invoker(ctx, method, req, reply, cc, pass.witness.Options(opts)...)
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

// Stream is [Unary] for streams. What counts is how a stream ends:
// that it could not be opened, or its status. A stream that is a probe counts as a
// success already when its headers or first message were seen, and then no more.
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
		pass, refused := c.enter(began)
		if refused != nil {
			c.tell()
			return nil, refused
		}
		c.gives(ctx)
		s := &stream{circuit: c, pass: pass, began: began, ctx: ctx}
		told := false
		defer func() { // a hook may end the goroutine
			if !told {
				s.Abandoned()
			}
		}()
		c.tell()
		told = true
		return observe.Stream(ctx, s, desc, cc, method, streamer, pass.witness.Options(opts))
	}
}
