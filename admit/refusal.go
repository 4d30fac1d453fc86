package admit

import (
	"math/bits"
	"time"
)

// Delays are rounded to a geometric ladder, so that each reason has a bounded
// number of refusals, built once: refusing must not allocate.
const (
	shortestDelay = 10 * time.Millisecond
	delayGrowth   = 1.1
	delaySteps    = 93 // up to longestDelay
	longestDelay  = time.Minute

	// usualDelay is the mean delay before anything is known.
	usualDelay = 100 * time.Millisecond
	// briefest is the shortest mean delay: a call that comes back sooner than it
	// travels finds what it left.
	briefest = 20 * time.Millisecond

	defaultMaxRetryAfter = time.Second
)

var delays = func() (d [delaySteps]time.Duration) {
	f := float64(shortestDelay)
	for i := range d {
		d[i] = min(time.Duration(f).Round(time.Millisecond), longestDelay)
		f *= delayGrowth
	}
	return d
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

// WithMaxRetryAfter sets the longest delay for which the gate's refusals ask, from
// 10 ms to a minute. Zero, the default, means one second.
//
// A client that obeys the delay does nothing for that long, so it should be short
// beside the deadlines of the callers. A refusal while the gate drains asks for 10 to
// 20 ms whatever the load is, because another server may take the call at once.
func WithMaxRetryAfter(d time.Duration) Option {
	return option(func(c *config) { c.maxRetryAfter = d })
}

// validRetryAfter checks what WithMaxRetryAfter has set.
func (c *config) validRetryAfter() bool {
	return c.maxRetryAfter == 0 || c.maxRetryAfter >= shortestDelay && c.maxRetryAfter <= longestDelay
}

// refusals makes the refusals of one gate, each when it is first needed. The gate's
// lock guards it.
type refusals struct {
	gate  string
	mean  time.Duration // of the delays that a busy gate asks for
	most  time.Duration // the longest delay
	built [reasons][delaySteps]*Refusal
}

// init is called once, before anything else.
func (r *refusals) init(c *config) {
	r.gate = c.name
	r.mean = usualDelay
	r.bound(c)
}

// bound sets the longest delay.
func (r *refusals) bound(c *config) {
	r.most = c.maxRetryAfter
	if r.most == 0 {
		r.most = defaultMaxRetryAfter
	}
}

// learn sets the mean delay from a window in which so many calls arrived and ended.
// turns is how many permits have to come back before a newcomer to a full queue has
// one, pace the mean time between two of them, 0 if unknown, and wait the longest that
// a call waits in the queue, 0 for any length.
//
// A newcomer that comes back after that time finds the queue served. While more
// arrive than are served it is one of several who want the place, so the delay grows
// with their ratio.
func (r *refusals) learn(turns int, pace, wait time.Duration, arrived, ended int) {
	mean := float64(usualDelay)
	if pace > 0 {
		mean = float64(pace) * float64(max(turns, 1))
	}
	if wait > 0 {
		mean = min(mean, float64(wait))
	}
	mean *= max(1, float64(arrived)/float64(max(ended, 1)))
	r.mean = time.Duration(min(max(mean, float64(briefest)), float64(longestDelay)))
}

// get returns the shared refusal for a reason, with a delay drawn anew: evenly from
// half of the mean to one and a half times the mean, and at most the longest.
func (r *refusals) get(why Reason, d *dice) *Refusal {
	delay := shortestDelay + d.below(shortestDelay-time.Millisecond)
	if why != Draining {
		mean := r.most * 2 / 3
		if !why.ofPressure() {
			mean = min(mean, r.mean)
		}
		delay = mean/2 + d.below(mean)
	}
	i := int(firstDelay[bits.Len64(uint64(delay))])
	for i < delaySteps-1 && delays[i] < delay {
		i++
	}
	for i > 0 && delays[i] > r.most { // it was rounded up
		i--
	}
	slot := &r.built[why][i]
	if *slot == nil {
		*slot = &Refusal{Reason: why, RetryAfter: delays[i], Gate: r.gate}
	}
	return *slot
}

// A dice is a cheap source of jitter (Knuth's linear congruential generator, of
// which only the high bits are used). It need not be unpredictable.
type dice uint64

const diceBits = 24

// below returns a duration from 0 to less than n, which must be less than nine
// minutes.
func (d *dice) below(n time.Duration) time.Duration {
	*d = *d*6364136223846793005 + 1442695040888963407
	return time.Duration(int64(n) * int64(*d>>(64-diceBits)) >> diceBits)
}
