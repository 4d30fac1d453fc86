package interceptors

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrThrottled is what errors.Is finds in the error of a call that a throttle
// refused.
var ErrThrottled = errors.New("weir: refused: throttled")

var throttled = retreat{cause: ErrThrottled, reason: "THROTTLED"}

// A ThrottleConfig configures [NewThrottle]. Every zero field means its default.
type ThrottleConfig struct {
	// Name names the throttle in metrics and pages; default "default". Choose it
	// in the program, never from a call.
	Name string
	// K is how many times what a server accepts may be sent to it; default 2, from
	// 1 to 100. Lower is more eager: at 1.1 a server has to refuse a single call for
	// each ten that it accepts.
	K float64
	// Window is how far back calls count; default 2 minutes, from 100 ms to a day.
	Window time.Duration
	// Recent is the later part of Window in which a recovery is looked for; default a
	// 24th of Window (5 s), from a hundredth of Window to all of it. All of it is the
	// book's law alone: see [Throttle].
	Recent time.Duration
}

func (c *ThrottleConfig) defaults() {
	c.Name = or(c.Name, "default")
	c.K = or(c.K, 2)
	c.Window = or(c.Window, 2*time.Minute)
	c.Recent = or(c.Recent, c.Window/24)
}

func (c *ThrottleConfig) validate() error {
	var bad checks
	between(&bad, "K", c.K, 1, 100)
	between(&bad, "Window", c.Window, 100*time.Millisecond, 24*time.Hour)
	bad.that(c.Recent >= c.Window/100 && c.Recent <= c.Window,
		"Recent: got %v, want a hundredth of Window (%v) to all of it", c.Recent, c.Window)
	return bad.err()
}

// A Throttle refuses calls to a target that refuses calls, so that refusing costs the
// target little (Beyer et al., "Site Reliability Engineering", 2016, chapter 21,
// "Handling Overload", "Client-Side Throttling"). A call is refused with probability
//
//	max(0, (requests - K*accepts) / (requests + 1))
//
// where requests are the calls that were to be made and accepts those that the target
// did not refuse, each over the last Window: so the target is sent about K times what
// it accepts. UNAVAILABLE and RESOURCE_EXHAUSTED are refusals. Anything else is an
// acceptance, DEADLINE_EXCEEDED too. Not counted at all are calls that their callers
// cancelled or whose context had ended before; calls that a gate, breaker or throttle
// of this process refused further in; what gRPC itself makes of messages that are too
// large and of what it cannot send, as described at [Breaker]; and errors without a
// status, which interceptors of this process made. The calls that the throttle itself
// refused count as requests, as in the book.
//
// Two things differ from the book. A call counts when it has ended, or a client that
// starts against a slow server would refuse its own first calls. And the probability
// is the lower one of two: that over Window, and that over the Recent part of it. By
// the book alone, a dead target gets one call in two minutes, and since what it is
// sent can only grow by a factor of about K within a window, it takes more than ten
// minutes after its return until 500 calls a second are all sent again. So a dead
// target gets about one call in each Recent, and within a minute of its return it gets
// everything.
//
// A target of which always more than 1-1/K of the calls are refused, however few
// there are, is throttled down as if it were dead.
//
// A refused call has UNAVAILABLE, the code of the refusals that it saves the target
// from, with errdetails.ErrorInfo and the reason THROTTLED, and errdetails.RetryInfo
// with a delay that grows with the probability.
//
// Each class of calls (see [ContextWithClass]) is counted for itself, as the book's
// chapter has it for criticalities: a target that refuses what matters least is sent
// less of that, and no less of the rest. A Throttle tells 1024 pairs of a target (in
// its canonical form) and a class apart; later ones share one more state. It is safe
// for concurrent use, never blocks and starts no goroutine. Use [NewThrottle], and one
// Throttle for the unary and the stream interceptor: the zero Throttle is not usable.
type Throttle struct {
	cfg     ThrottleConfig
	epoch   time.Time
	bucket  time.Duration // each target counts in buckets of this length
	buckets int
	recent  int            // how many of them are the recent part
	draw    func() float64 // from 0 up to 1; replaced in tests
	targets *table[*target]
}

// NewThrottle returns a throttle that lets everything pass until it has seen
// refusals. It returns an error that wraps ErrConfig and names every field that is
// out of range.
func NewThrottle(c ThrottleConfig) (*Throttle, error) {
	c.defaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	t := &Throttle{cfg: c, epoch: time.Now(), draw: rand.Float64}
	t.bucket = min(c.Recent/5, c.Window/24)
	t.buckets = ceilDiv(c.Window, t.bucket)
	t.recent = ceilDiv(c.Recent, t.bucket)
	t.targets = newTable(t.newTarget)
	return t, nil
}

func ceilDiv(d, by time.Duration) int { return int((d + by - 1) / by) }

// Name returns the throttle's name.
func (t *Throttle) Name() string { return t.cfg.Name }

// ThrottleStats is what a throttle does now and has done with the calls of one class
// to one target.
type ThrottleStats struct {
	// Target is that of the connections and Class the class, as [admit.Class] writes it;
	// both are "*" for what those share which came when there were 1024, or whose
	// target is not valid UTF-8.
	Target, Class string
	// Requests and Accepts are those of the last Window.
	Requests, Accepts int
	// Probability is that with which calls are refused now.
	Probability float64
	// Allowed counts the calls that were let through, Refused those that were not.
	Allowed, Refused uint64
}

// Stats returns the targets, sorted. It is meant for scrapes and pages, not for every
// call.
func (t *Throttle) Stats() []ThrottleStats {
	var all []ThrottleStats
	for _, g := range t.targets.all() {
		s := g.stats()
		if s.Target != everythingElse || s.Allowed+s.Refused > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y ThrottleStats) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), cmp.Compare(x.Class, y.Class))
	})
	return all
}

// UnaryThrottle returns an interceptor that refuses calls with the throttle's
// probability. In a chain it stands outside of [UnaryClient] and [UnaryBreaker];
// retries by gRPC happen inside of it and are one call. A call whose context has ended
// already passes, uncounted.
//
// With a nil throttle every call fails with INTERNAL.
func UnaryThrottle(t *Throttle) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if t == nil {
			return errNoThrottle
		}
		if ctx.Err() != nil {
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		g := t.targets.at(cc, contextClass(ctx).String())
		if refusal := g.enter(); refusal != nil {
			return refusal
		}
		err := invoker(ctx, method, req, reply, cc, opts...)
		g.ended(err)
		return err
	}
}

// StreamThrottle is [UnaryThrottle] for streams. A stream is accepted when its
// headers or first message are seen, or when it ends with anything but a refusal.
//
// With a nil throttle every call fails with INTERNAL.
func StreamThrottle(t *Throttle) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		if t == nil {
			return nil, errNoThrottle
		}
		if ctx.Err() != nil {
			return streamer(ctx, desc, cc, method, opts...)
		}
		g := t.targets.at(cc, contextClass(ctx).String())
		if refusal := g.enter(); refusal != nil {
			return nil, refusal
		}
		return observe(ctx, &throttleStream{target: g}, desc, cc, method, streamer, opts)
	}
}

var errNoThrottle = status.Error(codes.Internal, "weir: interceptor without a throttle")

// A target counts the calls of one class to one target.
type target struct {
	name     string
	class    string
	throttle *Throttle

	probability      atomic.Uint64 // the bits of a float64; written with mu held
	rollAt           atomic.Int64  // when the next bucket begins, on the throttle's clock
	allowed, refused atomic.Uint64

	mu     sync.Mutex // guards what follows
	now    int        // the bucket of now, since the throttle was made
	counts []count    // the last buckets, now's at now modulo their number
	window count      // the sum of all of them
	recent count      // the sum of the recent ones
}

type count struct{ requests, accepts int }

func (c *count) add(o count) {
	c.requests += o.requests
	c.accepts += o.accepts
}

func (c *count) subtract(o count) { c.add(count{-o.requests, -o.accepts}) }

// probability is the book's.
func (c count) probability(k float64) float64 {
	return max(0, (float64(c.requests)-k*float64(c.accepts))/float64(c.requests+1))
}

func (t *Throttle) newTarget(p place) *target {
	return &target{name: p.target, class: p.method, throttle: t, counts: make([]count, t.buckets)}
}

// enter returns why a call may not be made, or nil.
func (g *target) enter() *stopped {
	if now := time.Since(g.throttle.epoch); int64(now) >= g.rollAt.Load() {
		g.mu.Lock()
		g.rollLocked(now)
		g.mu.Unlock()
	}
	p := math.Float64frombits(g.probability.Load())
	if p == 0 || g.throttle.draw() >= p {
		g.allowed.Add(1)
		return nil
	}
	g.refused.Add(1)
	g.count(count{requests: 1})
	return throttled.after(jittered(min(time.Duration(float64(usualDelay)/(1-p)), g.throttle.cfg.Recent)))
}

// usualDelay is the mean delay that a throttle asks for when it refuses few.
const usualDelay = 100 * time.Millisecond

// ended counts a call that was let through.
func (g *target) ended(err error) {
	switch {
	case err == nil:
		g.count(count{1, 1})
		return
	case ours(err):
		return
	}
	st, ok := status.FromError(err)
	if !ok {
		return
	}
	switch code := st.Code(); {
	case code == codes.Canceled || fromGRPC(st):
	case code == codes.Unavailable || code == codes.ResourceExhausted:
		g.count(count{requests: 1})
	default:
		g.count(count{1, 1})
	}
}

func (g *target) count(c count) {
	now := time.Since(g.throttle.epoch)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rollLocked(now)
	g.counts[g.now%len(g.counts)].add(c)
	g.window.add(c)
	g.recent.add(c)
	g.judgeLocked()
}

// rollLocked begins the bucket of now, if it has not begun.
func (g *target) rollLocked(now time.Duration) {
	t := g.throttle
	to := int(now / t.bucket)
	if to-g.now >= len(g.counts) { // nothing is left
		clear(g.counts)
		g.window, g.recent, g.now = count{}, count{}, to
	}
	for g.now < to {
		g.now++
		oldest := &g.counts[g.now%len(g.counts)]
		g.window.subtract(*oldest)
		g.recent.subtract(g.counts[(g.now-t.recent+len(g.counts))%len(g.counts)])
		*oldest = count{}
	}
	g.rollAt.Store(int64(time.Duration(g.now+1) * t.bucket))
	g.judgeLocked()
}

// judgeLocked computes the probability.
func (g *target) judgeLocked() {
	k := g.throttle.cfg.K
	g.probability.Store(math.Float64bits(min(g.window.probability(k), g.recent.probability(k))))
}

func (g *target) stats() ThrottleStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rollLocked(time.Since(g.throttle.epoch))
	return ThrottleStats{
		Target: g.name, Class: g.class, Requests: g.window.requests, Accepts: g.window.accepts,
		Probability: math.Float64frombits(g.probability.Load()),
		Allowed:     g.allowed.Load(), Refused: g.refused.Load(),
	}
}

// A throttleStream is the throttle's observer of one stream.
type throttleStream struct {
	target  *target
	counted atomic.Bool
}

func (s *throttleStream) answered() { s.ended(nil) }

func (s *throttleStream) ended(err error) {
	if !s.counted.Swap(true) {
		s.target.ended(err)
	}
}

func (s *throttleStream) abandoned() { s.counted.Store(true) }
