package breaker

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/interceptors/internal/callctx"
	"github.com/weir-go/weir/interceptors/internal/latency"
	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// A Verdict is the health of a server as the end of a call shows it: Healthy, Unwell, or
// Excluded if the call shows nothing.
type Verdict uint8

// The verdicts.
const (
	// Excluded shows nothing about the server. The call is not counted.
	Excluded Verdict = iota
	// Healthy shows that the server did its work, even if it rejected the call.
	Healthy
	// Unwell shows that the server cannot do its work.
	Unwell
)

// WithVerdict sets the function that judges the end of a call. Nil restores the default,
// which [Breaker] describes. It is called from many goroutines at once, with nil for a
// successful call. It never gets an error that a gate, throttle or breaker of this process
// made. If it panics, the call is excluded.
func WithVerdict(f func(error) Verdict) Option {
	return option(func(b *Breaker) { b.verdictOf = f })
}

// verdict judges the end of a call.
func (c *circuit) verdict(ctx context.Context, began time.Duration, err error) Verdict {
	b := c.breaker
	switch {
	case err != nil && refusal.Ours(err):
		return Excluded
	case b.verdictOf != nil:
		return b.askedVerdict(err)
	case err == nil:
		return Healthy
	}
	st, ok := status.FromError(err)
	if !ok {
		return Excluded
	}
	v := verdictOfStatus(st)
	switch code := st.Code(); {
	case v == Healthy:
		c.pace.Answered()
	case code == codes.Canceled && callctx.Canceled(ctx),
		code == codes.DeadlineExceeded && v == Unwell && (callctx.Canceled(ctx) || callctx.TimeIsUp(ctx, b.now()-began)):
		return c.lateVerdict(ctx, began)
	}
	return v
}

// verdictOfStatus judges the server by the status that it sent.
func verdictOfStatus(st *status.Status) Verdict {
	switch st.Code() {
	case codes.Canceled, codes.ResourceExhausted:
		return Excluded
	case codes.DeadlineExceeded, codes.Unavailable, codes.Internal:
		if refusal.FromWeir(st) || refusal.FromGRPC(st) {
			return Excluded
		}
		return Unwell
	case codes.Unauthenticated:
		if refusal.FromGRPC(st) {
			return Excluded
		}
		return Healthy
	default:
		return Healthy
	}
}

const (
	// unknownPace is the time in which a method is expected to answer that has never
	// answered.
	unknownPace = time.Second
	// longDry is the time without an answer after which any caller's deadline counts.
	longDry = 10 * unknownPace
)

// lateVerdict judges a call that its caller gave up. The server is unwell if the caller
// waited for longer than the method takes.
func (c *circuit) lateVerdict(ctx context.Context, began time.Duration) Verdict {
	now := c.breaker.now()
	had, dry := now-began, c.pace.Late(now)
	mean, dev := c.pace.Usual()
	enough := latency.Fair(had, mean, dev, dry, unknownPace)
	if mean == 0 {
		// The callers with the longest deadlines know best how long the method takes. A
		// caller that cancels does not say how long it would have waited.
		patient := callctx.Canceled(ctx) || dry >= longDry || had >= c.pace.Longest()/2
		enough = had >= unknownPace || enough && patient
	}
	if enough {
		return Unwell
	}
	return Excluded
}

// learn records the time of a successful call. While all calls succeed, it does so for some
// of them only, to spare the others the clock.
func (c *circuit) learn(began time.Duration) {
	if c.pace.Known() && rand.Uint32()%(latency.LearnOneIn/2) != 0 {
		return
	}
	now := c.breaker.now()
	c.pace.Saw(now-began, now)
}

// gives records how long the caller of a call will wait.
func (c *circuit) gives(ctx context.Context) {
	if c.pace.Learned() {
		return
	}
	wait := time.Duration(math.MaxInt64)
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	c.pace.Gave(wait)
}

// askedVerdict calls the user's function.
func (b *Breaker) askedVerdict(err error) (v Verdict) {
	b.guard(func() { v = b.verdictOf(err) })
	if v > Unwell {
		return Excluded
	}
	return v
}
