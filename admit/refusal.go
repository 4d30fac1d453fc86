package admit

import (
	"math/bits"
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

// firstDelay holds, by its number of bits, where to begin to look for a delay on the
// ladder.
var firstDelay = func() (first [64]int8) {
	i := 0
	for n := range first {
		for i < delaySteps-1 && n > 0 && delays[i] < 1<<(n-1) {
			i++
		}
		first[n] = int8(i)
	}
	return first
}()

// A dice is a cheap source of jitter (Knuth's linear congruential generator, of
// which only the high bits are used). It need not be unpredictable.
type dice uint64

const diceBits = 24

func (d *dice) roll() int64 {
	*d = *d*6364136223846793005 + 1442695040888963407
	return int64(*d >> (64 - diceBits))
}

// refusal returns the shared error for a reason, with a delay drawn evenly from
// half of base to one and a half times base.
func (d *dice) refusal(why Reason, base time.Duration) *Refusal {
	delay := base/2 + time.Duration(int64(base)*d.roll()>>diceBits)
	i := int(firstDelay[bits.Len64(uint64(max(delay, 0)))])
	for i < delaySteps-1 && delays[i] < delay {
		i++
	}
	return refusals[why][i]
}
