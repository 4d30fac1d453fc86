package admit

import (
	"math/rand/v2"
	"time"
)

// Delays are rounded to a geometric ladder, so that each reason has a bounded
// number of refusals, built once: refusing must not allocate.
const (
	shortestDelay = 20 * time.Millisecond
	delaySteps    = 80
	delayGrowth   = 1.1
	longestDelay  = 30 * time.Second

	// usualDelay is the pushback of a gate that refuses now and then; the ratio
	// of arrivals to admissions multiplies it.
	usualDelay = 100 * time.Millisecond
	drainDelay = time.Second
)

var delays = func() (d [delaySteps]time.Duration) {
	f := float64(shortestDelay)
	for i := range d {
		d[i] = min(time.Duration(f).Round(time.Millisecond), longestDelay)
		f *= delayGrowth
	}
	return d
}()

var refusals = func() (r [reasons][delaySteps]*Refusal) {
	for i := range r {
		for j := range r[i] {
			r[i][j] = &Refusal{Reason: Reason(i), RetryAfter: delays[j]}
		}
	}
	return r
}()

// refusal returns the shared error for a reason, with a delay drawn evenly from
// half of base to one and a half times base.
func refusal(why Reason, base time.Duration) *Refusal {
	d := base/2 + rand.N(base+1)
	lo, hi := 0, delaySteps-1 // the first delay that is not shorter; no closure, for speed
	for lo < hi {
		if mid := (lo + hi) / 2; delays[mid] < d {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return refusals[why][lo]
}
