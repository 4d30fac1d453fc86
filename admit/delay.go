package admit

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Refusing must not allocate. So delays are rounded to a geometric ladder, and each
// refusal of a reason and a step is built once.
const (
	shortestDelay = 10 * time.Millisecond
	delayGrowth   = 1.1
	delaySteps    = 93 // up to longestDelay
	longestDelay  = time.Minute

	// usualDelay is the mean delay of a new gate.
	usualDelay = 100 * time.Millisecond
	// briefest is the shortest mean delay. A call that comes back within a round trip
	// finds the same queue.
	briefest = 20 * time.Millisecond

	defaultMaxRetryAfter = time.Second
)

// delays is the ladder.
var delays = func() (d [delaySteps]time.Duration) {
	f := float64(shortestDelay)
	for i := range d {
		d[i] = min(time.Duration(f).Round(time.Millisecond), longestDelay)
		f *= delayGrowth
	}
	return d
}()

// firstDelay holds the index at which the search for a delay begins, by the number of
// bits of the delay.
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

// WithMaxRetryAfter bounds the delay that refusals ask for, from 10 ms to a minute. Zero
// means the default of one second.
//
// A client that obeys the delay does nothing during that time. So the bound should be
// short compared with the deadlines of the callers. While the gate drains, refusals ask
// for 10 to 20 ms whatever the load, because another server may take the call at once.
func WithMaxRetryAfter(d time.Duration) Option {
	return option(func(c *config) { c.maxRetryAfter = d })
}

// refusals holds the refusals of one gate and builds each when it is first needed. The
// gate's lock guards it.
type refusals struct {
	gate  string
	mean  time.Duration // mean delay
	most  time.Duration // longest delay
	quiet silence
	dice  dice // the jitter
	built [NumReasons][delaySteps]*Refusal
}

// init must be called first.
func (r *refusals) init(gate string) {
	r.gate, r.mean, r.dice = gate, usualDelay, dice(rand.Uint64())
}

// bound sets the longest delay.
func (r *refusals) bound(c *config) {
	r.most = c.maxRetryAfter
	if r.most == 0 {
		r.most = defaultMaxRetryAfter
	}
}

// learn sets the mean delay from a window. The parameters are
//
//   - turns: the number of permits that come back before a newcomer to a full queue
//     gets one
//   - pace: the mean time between two of them, or 0 if it is not known
//   - wait: the longest wait in the queue, or 0 for no bound
//   - arrived, ended: the calls that came and ended in the window
//
// A caller that comes back after turns times pace finds the queue served. While more
// calls come than are served, several callers compete for each place, so the delay grows
// by the ratio of arrived to ended.
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

// A silence measures how long no permit has come back. It begins with a refusal, because the
// time before, in which the gate may have been idle, says nothing. A refusal must be cheap, so
// most do not read the clock.
type silence struct {
	skip  int           // refusals until the clock is read again
	read  time.Duration // when it was read last
	since time.Duration // when the silence began, or 0
	lasts time.Duration
}

const (
	// silenceSkip is the number of refusals of which one reads the clock, if that many come
	// within silenceGap. Otherwise each reads it.
	silenceSkip = 16
	silenceGap  = 50 * time.Millisecond
)

// due reports whether a refusal has to call see. During a silence each has to, since a permit
// may have come back meanwhile.
func (s *silence) due() bool {
	s.skip--
	return s.skip < 0 || s.lasts > silenceGap
}

// see notes the time of a refusal.
func (s *silence) see(now time.Duration) {
	if s.skip = 0; now-s.read < silenceGap {
		s.skip = silenceSkip
	}
	if s.read = now; s.since == 0 {
		s.since = max(now, 1)
	}
	s.lasts = now - s.since
}

// end notes that a permit came back.
func (s *silence) end() { s.since, s.lasts = 0, 0 }

// get returns the shared refusal for a reason. It draws the delay evenly from 0.5 to 1.5
// times the mean, and bounds it by the longest delay. If no permit has come back for longer
// than the mean, that time is the mean, because the pace of earlier calls tells nothing then.
// The mean of a refusal because of pressure is two thirds of the longest delay, because
// pressure does not end with the queue.
func (r *refusals) get(why Reason) *Refusal {
	delay := shortestDelay + r.dice.below(shortestDelay-time.Millisecond)
	if why != Draining {
		mean := r.most * 2 / 3
		if why != TooManyOpen && !why.ofPressure() { // these last, and the queue does not tell for how long
			mean = min(mean, max(r.mean, r.quiet.lasts))
		}
		delay = mean/2 + r.dice.below(mean)
	}
	i := int(firstDelay[bits.Len64(uint64(delay))])
	for i < delaySteps-1 && delays[i] < delay {
		i++
	}
	for i > 0 && delays[i] > r.most { // rounded up beyond the bound
		i--
	}
	slot := &r.built[why][i]
	if *slot == nil {
		*slot = &Refusal{Reason: why, RetryAfter: delays[i], Gate: r.gate}
	}
	return *slot
}

// A dice is a cheap source of jitter. It is Knuth's linear congruential generator, and
// only its high bits are used. It is not unpredictable and need not be.
type dice uint64

const diceBits = 24

// below returns a duration from 0 to less than n. N must be less than nine minutes.
func (d *dice) below(n time.Duration) time.Duration {
	*d = *d*6364136223846793005 + 1442695040888963407
	return time.Duration(int64(n) * int64(*d>>(64-diceBits)) >> diceBits)
}

// Delays of quotas are rounded up to milliseconds, the unit in which clients learn them.
// A call that came back earlier would be refused again. Calls with the same delay share a
// refusal.
const (
	longestQuotaDelay = 24 * time.Hour
	quotaDelays       = 1024
)

// quotaRefusals caches refusals by their delay.
type quotaRefusals [quotaDelays]atomic.Pointer[Refusal]

// after returns a refusal with a delay.
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
