package admit

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// A bucket is an allowance: tokens that come at a rate, up to a burst.
//
// A call takes its tokens before it asks for a permit, so that no two calls count on
// the same ones, and gives them back if it gets none. What it gives back must not be
// more than what the bucket would hold if the call had never come: while the tokens
// were gone, others came in their place that a full bucket would not have taken.
// Otherwise a caller could double its burst with calls that wait and leave.
type bucket struct {
	tokens *rate.Limiter
	rate   Rate
	taken  float64 // by calls that have no permit yet
	// owed is how much of taken would be in the bucket if those calls had not come:
	// with it the bucket holds no more than its burst.
	owed float64
}

func newBucket(r Rate) *bucket {
	return &bucket{tokens: rate.NewLimiter(rate.Limit(r.PerSecond), r.burst()), rate: r}
}

// become changes the rate and keeps what was used.
func (b *bucket) become(r Rate, now time.Time) {
	if b.rate != r {
		b.rate = r
		b.tokens.SetLimitAt(now, rate.Limit(r.PerSecond))
		b.tokens.SetBurstAt(now, r.burst())
	}
}

// cost is what a call that costs n takes.
func (b *bucket) cost(n int) int { return min(max(n, 1), b.rate.burst()) }

// missing returns how long it takes until there are n tokens, 0 if there are.
func (b *bucket) missing(n int, now time.Time) time.Duration {
	d := (float64(n) - b.tokens.TokensAt(now)) / b.rate.PerSecond * float64(time.Second)
	if d < 1 { // the limiter is as tolerant
		return 0
	}
	return time.Duration(min(d, float64(longestQuotaDelay)))
}

// take takes n tokens, which are there.
func (b *bucket) take(n int, now time.Time) {
	b.refill(now)
	b.tokens.AllowN(now, n)
	b.taken += float64(n)
	b.owed += float64(n)
}

// ran notes that a call which took n tokens has got its permit.
func (b *bucket) ran(n int) {
	b.taken -= float64(n)
	b.owed = min(b.owed, b.taken)
}

// giveBack gives back what a call took that got no permit.
func (b *bucket) giveBack(n int, now time.Time) {
	b.refill(now)
	back := min(float64(n), b.owed)
	b.owed -= back
	b.tokens.AllowN(now, -int(math.Ceil(back))) // a part of a token only fills the bucket up
	b.ran(n)
}

// refill notes what a bucket that no call had taken from would have had no room for.
func (b *bucket) refill(now time.Time) {
	if b.owed > 0 {
		b.owed = max(0, min(b.owed, float64(b.rate.burst())-b.tokens.TokensAt(now)))
	}
}

// fullAt returns when the bucket will be full, if nothing more is taken.
func (b *bucket) fullAt(now time.Time) time.Time {
	return now.Add(b.missing(b.rate.burst(), now))
}

// full reports whether the bucket is as good as new, whatever waiting calls have taken
// from it: see refill.
func (b *bucket) full(now time.Time) bool { return b.missing(b.rate.burst(), now) == 0 }

// like takes from a new bucket what is missing in another.
func (b *bucket) like(o *bucket, now time.Time) {
	used := float64(b.rate.burst()) - o.tokens.TokensAt(now)
	b.tokens.AllowN(now, min(max(0, int(math.Ceil(used))), b.rate.burst()))
}

// Delays of quotas are exact to the millisecond, in which clients are told them, and
// rounded up: a call that comes back earlier would be refused again. Calls that are
// refused in the same millisecond share a refusal.
const (
	longestQuotaDelay = 24 * time.Hour
	quotaDelays       = 1024
)

type quotaRefusals [quotaDelays]atomic.Pointer[Refusal]

func (q *quotaRefusals) after(delay time.Duration, gate string) *Refusal {
	delay = (delay + time.Millisecond - 1).Truncate(time.Millisecond)
	slot := &q[delay.Milliseconds()%quotaDelays]
	if r := slot.Load(); r != nil && r.RetryAfter == delay {
		return r
	}
	r := &Refusal{Reason: OverQuota, RetryAfter: delay, Gate: gate}
	slot.Store(r)
	return r
}
