package admit

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// A bucket holds tokens. They come at a rate, up to a burst. It is not safe for
// concurrent use.
//
// A call takes its tokens before it asks for a permit, so that no two calls count on the
// same tokens. If it gets no permit, it gives them back. The bucket must not hold more
// afterwards than if the call had never come. While the tokens were gone, the bucket took
// new ones that it would have had no room for. Otherwise a caller could double its burst
// with calls that wait and leave.
type bucket struct {
	tokens *rate.Limiter
	rate   Rate
	taken  float64 // tokens of calls that have no permit yet
	// owed is the part of taken that may still come back. The tokens and owed together
	// never exceed the burst.
	owed float64
}

func newBucket(r Rate) *bucket {
	return &bucket{tokens: rate.NewLimiter(rate.Limit(r.PerSecond), r.burst()), rate: r}
}

// become changes the rate. Usage carries over.
func (b *bucket) become(r Rate, now time.Time) {
	if b.rate != r {
		b.rate = r
		b.tokens.SetLimitAt(now, rate.Limit(r.PerSecond))
		b.tokens.SetBurstAt(now, r.burst())
	}
}

// cost returns the tokens that a call with a cost of n takes.
func (b *bucket) cost(n int) int { return min(max(n, 1), b.rate.burst()) }

// missing returns the delay until there are n tokens, or 0 if there are.
func (b *bucket) missing(n int, now time.Time) time.Duration {
	d := (float64(n) - b.tokens.TokensAt(now)) / b.rate.PerSecond * float64(time.Second)
	if d < 1 { // the limiter has the same tolerance
		return 0
	}
	return time.Duration(min(d, float64(longestQuotaDelay)))
}

// take takes n tokens. They must be there.
func (b *bucket) take(n int, now time.Time) {
	b.refill(now)
	b.tokens.AllowN(now, n)
	b.taken += float64(n)
	b.owed += float64(n)
}

// ran ends the spending of a call that took n tokens and got its permit.
func (b *bucket) ran(n int) {
	b.taken -= float64(n)
	b.owed = min(b.owed, b.taken)
}

// giveBack ends the spending of a call that took n tokens and got no permit.
func (b *bucket) giveBack(n int, now time.Time) {
	b.refill(now)
	back := min(float64(n), b.owed)
	b.owed -= back
	b.tokens.AllowN(now, -int(math.Ceil(back))) // rounded up, which leaves the bucket full
	b.ran(n)
}

// refill lowers owed by the tokens that have come since and have filled the bucket.
func (b *bucket) refill(now time.Time) {
	if b.owed > 0 {
		b.owed = max(0, min(b.owed, float64(b.rate.burst())-b.tokens.TokensAt(now)))
	}
}

// fullAt returns the time at which the bucket will be full if no call takes from it.
func (b *bucket) fullAt(now time.Time) time.Time {
	return now.Add(b.missing(b.rate.burst(), now))
}

// full reports whether the bucket is full. It has no room for tokens that waiting
// calls may give back, as refill explains.
func (b *bucket) full(now time.Time) bool { return b.missing(b.rate.burst(), now) == 0 }

// like takes as many tokens as are missing in o. The bucket must be new.
func (b *bucket) like(o *bucket, now time.Time) {
	used := float64(b.rate.burst()) - o.tokens.TokensAt(now)
	b.tokens.AllowN(now, min(max(0, int(math.Ceil(used))), b.rate.burst()))
}
