package limit

import (
	"math"
	"time"
)

// AdaptiveConfig configures [NewAdaptive]. Every zero field means its default.
type AdaptiveConfig struct {
	// Initial is the limit before anything is known; default 32.
	Initial int
	// Min and Max bound the limit; default 1 and the constant Max.
	Min, Max int
}

// Adaptive finds the knee: the fewest calls in flight with which the server
// does all that it can. It needs no tuning, and none of its parameters is a
// time or a latency: everything is measured in samples and in shares.
//
// The law. With N calls in flight, latency R and throughput X, Little's law
// says N = X R (Little, "A Proof for the Queuing Formula: L = λW", Operations
// Research 9(3), 1961). Below the knee R is the bare service time S and X
// grows with N; beyond it X stays at the server's capacity and R grows with N.
// So the knee is at N* = X S, with X seen at a limit that is reached and S at
// one at which nothing queues inside (Kleinrock, "Power and Deterministic Rules
// of Thumb", ICC 1979, finds the same operating point; BBR, Cardwell et al.,
// ACM Queue 14(5), 2016, steers a network path by the same two quantities). The
// limit is N* plus a little headroom, so that a worker never waits for the next
// call.
//
// S cannot be seen at a limit that keeps the server busy, and may change. So
// now and then the limit dips below N* for some dozens of samples: the dips
// cost at most about 1 % of the throughput. A limit that is found to be free of
// queueing grows, by more each time; and no decrease is kept unless it helped:
// if latency does not fall with the limit, the calls have become slower and the
// server is not overloaded, and the limit goes back.
//
// All of it is estimated from samples, so the estimates carry their standard
// error: a decision waits for as many samples as the spread of latencies asks
// for, a surprise is looked at twice, and where N* is uncertain the upper end
// of what it may be is used. DESIGN.md derives the law, gives the reason for
// each parameter, and says where it is weak.
//
// Only successes are latency samples. Overloads lower the limit if they are
// more than a tenth of the calls and if lowering it makes them fewer.
type Adaptive struct {
	min, max float64

	limit float64 // the limit to cruise at
	phase phase
	low   float64 // the limit while dipping or retreating

	seen   segment       // of the phase, since it settled
	settle time.Duration // until the last change of limit has worked through

	base      mean    // S
	rate      mean    // X
	variation float64 // of single latencies: squared coefficient, long-run

	starting bool    // nothing has queued yet: double
	grewFrom float64 // the limit before the last step up; 0 when not growing
	step     float64 // the next step up
	anchor   float64 // the highest limit since the base was last looked at
	from     float64 // calls in flight before the dip
	doubt    bool    // this dip is because the base is not believed
	sinceDip float64 // samples

	overloads float64 // share of overloads that made the limit retreat
	tolerated float64 // share of overloads that a lower limit does not help
}

type phase int

const (
	cruising   phase = iota
	dipping          // to see the latency without a queue
	retreating       // to see whether there are fewer overloads
)

// The parameters: shares and counts, no times. Each is explained in DESIGN.md.
const (
	headroomShare   = 0.2         // headroom is this times the square root of the limit, at least 1
	fine, coarse    = 0.05, 0.125 // relative precision of a mean: at best, at worst
	rough           = 0.14        // and while starting
	leastSamples    = 16
	mostSamples     = 4096
	baseMemory      = 16.0 // how much the base remembers, in segments
	rateMemory      = 6.0
	variationMemory = 8.0
	surprise        = 4.0  // standard errors that are no accident
	lookAgain       = 2.5  // segments to look at before believing a surprise
	dipDepth        = 0.85 // how far below the knee a dip goes
	doubtDepth      = 0.6  // and when the base is not believed
	dipBudget       = 0.01 // throughput to spend on dips
	longestWait     = 40.0 // segments between two dips
	weakBase        = 4.0  // segments behind a base that is not weak
	boost           = 8.0  // how much more often to look at a weak one
	fastestGrowth   = 0.12 // of the limit, once it has queued
	settleTimes     = 1.5  // mean latencies for a change to work through
	steadyState     = 0.75 // least agreement between limit and calls in flight
	tolerance       = 0.1  // share of overloads that is no alarm
)

// NewAdaptive returns an Adaptive. It returns an error that wraps ErrConfig if
// a field is out of range.
func NewAdaptive(c AdaptiveConfig) (*Adaptive, error) {
	c.Min, c.Max = or(c.Min, 1), or(c.Max, Max)
	c.Initial = or(c.Initial, min(max(32, c.Min), c.Max))
	var bad checks
	bad.bounds(c.Initial, c.Min, c.Max)
	if err := bad.err(); err != nil {
		return nil, err
	}
	l := float64(c.Initial)
	return &Adaptive{min: float64(c.Min), max: float64(c.Max), limit: l, step: l, starting: true, variation: 1}, nil
}

// Limit returns the current limit.
func (a *Adaptive) Limit() int {
	if a.phase != cruising {
		return int(a.low)
	}
	return int(math.Round(a.limit))
}

// Update implements Algorithm.
func (a *Adaptive) Update(w Window) int {
	switch {
	case w.Succeeded+w.Overloaded == 0, w.Duration <= 0:
		return a.Limit()
	case a.settle > 0:
		a.settle -= w.Duration
		return a.Limit()
	}
	a.seen.add(w)
	if a.seen.calls() < a.needed() {
		return a.Limit()
	}
	if a.seen.full() && !a.steady(float64(w.Limit)) {
		a.seen = segment{}
		return a.Limit()
	}
	before := a.Limit()
	if a.judge() {
		if a.Limit() != before {
			a.settle = time.Duration(settleTimes * a.seen.latency.value * float64(time.Second))
		}
		a.seen = segment{}
	}
	return a.Limit()
}

// steady reports whether as many calls were in flight as the limit allows:
// otherwise a change is still working through, and latencies are of calls that
// began before it, or only of the short ones among those that began after it.
func (a *Adaptive) steady(limit float64) bool {
	n := a.seen.inFlight()
	return n > steadyState*limit && n*steadyState < limit
}

// needed is how many samples make a segment: as many as bring the standard
// error of a mean down to a fraction of a step of the limit, and at least one
// for each call in flight.
func (a *Adaptive) needed() float64 {
	d := min(max(a.headroom(a.limit)/a.limit, fine), coarse)
	if a.starting {
		d = rough
	}
	return min(max(a.variation/(d*d), leastSamples, a.limit), mostSamples)
}

// judge decides on the limit, with a whole segment seen. It reports false to
// see more of the same first.
func (a *Adaptive) judge() bool {
	share := a.seen.overloaded / a.seen.calls()
	switch {
	case a.phase == retreating:
		a.judgeRetreat(share)
		return true
	case a.seen.latency.n == 0, a.phase == cruising && share > max(tolerance, 1.5*a.tolerated):
		a.retreat(share)
		return true
	}
	a.tolerated = share
	a.variation += (a.seen.variation() - a.variation) / variationMemory
	if a.phase == dipping {
		return a.judgeDip()
	}
	return a.judgeCruise()
}

// judgeCruise decides after a segment at the limit itself.
func (a *Adaptive) judgeCruise() bool {
	s, l := &a.seen, math.Round(a.limit)
	switch {
	case !s.full():
		return a.judgeUnpressed()
	case a.base.n == 0:
		a.rate = s.rate()
		a.startDip(l/2, true)
		return true
	case s.latency.value < a.base.value && a.surprising(s.latency, a.base) && !a.learn(&a.base, s.latency, baseMemory):
		return false // the base can't be slower than what is seen
	}
	if a.grewFrom > 0 {
		a.rate = mean{}
	}
	if !a.learn(&a.rate, s.rate(), rateMemory) {
		return false
	}
	a.sinceDip += s.latency.n
	a.steer(l)
	return true
}

// judgeUnpressed decides after a segment in which permits were mostly free. It
// raises the limit only if a quarter of the calls met it.
func (a *Adaptive) judgeUnpressed() bool {
	s := &a.seen
	slow := a.base.n > 0 && s.latency.value > 1.25*a.base.value
	switch {
	case a.base.n == 0 && s.inFlight() >= 2:
		// It may queue where it is not seen: a server that ran out of
		// processors delays calls on their way to the gate, too.
		a.rate = s.rate()
		a.startDip(min(s.inFlight(), a.limit)/2, true)
		return true
	case !slow && 4*s.pressed > s.arrived && 2*s.inFlight() > a.limit && s.inFlight() < steadyState*a.limit:
		a.grow(a.limit) // now and then permits were missing, and nothing queued
		return true
	case a.rate.n > 0 && s.inFlight() < 0.7*a.rate.value*a.base.value, a.rate.n == 0 && !slow:
		return a.learn(&a.base, s.latency, baseMemory) // a free look at the base
	case !slow:
		return true // nothing to learn between idle and full
	case !a.surprising(s.latency, a.base):
		return s.latency.n > lookAgain*a.needed()
	case s.rising():
		return true // a dip below what was in flight on the mean could be far too deep
	}
	// It queues, or the calls have become slower.
	a.rate = s.rate()
	a.startDip(doubtDepth*min(s.inFlight(), a.limit), true)
	return true
}

// steer moves the limit from l, with a fresh rate.
func (a *Adaptive) steer(l float64) {
	knee, room := a.knee(), a.headroom(l)
	bar := l - room/2
	if a.grewFrom > 0 {
		bar = (l + a.grewFrom) / 2
	}
	switch {
	case a.grewFrom == 0 && knee+room < dipDepth*max(a.anchor, l): // l is above it if the limit was never reached before
		a.startDip(doubtDepth*l, true)
	case a.grewFrom == 0 && a.seen.full() && a.dipIsDue(l):
		a.startDip(a.below(l), false)
	case knee <= bar && a.grewFrom > 0:
		a.settleAt(max(knee, a.grewFrom-room), 0) // nothing queued there
	case knee <= bar:
		a.settleAt(knee, max(a.anchor, l))
	case a.seen.full():
		a.grow(l)
	}
}

// judgeDip decides after a segment below the limit.
func (a *Adaptive) judgeDip() bool {
	seen, known := a.seen.latency, a.base.n > 0
	slower := !known || seen.value > a.base.value && a.surprising(seen, a.base)
	if a.doubt {
		a.base = seen
	} else if !a.learn(&a.base, seen, baseMemory) {
		return false
	}
	if slower {
		// Either it queues down here too, and latency fell with the limit; or
		// the calls have become slower, and it did not.
		if a.low > a.min && a.rate.value*seen.value < a.low+0.35*(a.from-a.low) {
			a.limit, a.rate = a.low, a.seen.rate()
			if !known {
				a.base = mean{}
			}
			a.startDip(a.low/2, true)
			return true
		}
		a.base = seen
	}
	a.phase = cruising
	bar := a.limit - a.headroom(a.limit)/2
	if a.starting {
		bar = (a.low + a.limit) / 2
	}
	switch knee := a.knee(); {
	case a.from < steadyState*a.limit && knee > dipDepth*a.from:
		// The limit was not reached, and nothing queued.
	case knee > bar:
		a.grow(a.limit)
	default:
		a.settleAt(knee, 0)
	}
	return true
}

// learn blends v into m. If they differ beyond accident it asks for more, by
// reporting false, and then replaces m.
func (a *Adaptive) learn(m *mean, v mean, memory float64) bool {
	switch {
	case m.n == 0 || !a.surprising(v, *m):
		m.add(v, memory*a.needed())
	case a.variation > 1e-4 && v.n < lookAgain*a.needed():
		return false
	default:
		*m = v
	}
	return true
}

func (a *Adaptive) surprising(v, m mean) bool {
	off := math.Abs(v.value - m.value)
	return off > 0.02*m.value && off > surprise*math.Sqrt(a.variation*(v.value*v.value/v.n+m.value*m.value/m.n))
}

// knee is the upper end of what X S may be: one standard error up.
func (a *Adaptive) knee() float64 {
	se := math.Sqrt(a.variation * (1/a.rate.n + 1/a.base.n))
	return a.rate.value * a.base.value * (1 + min(se, 0.5))
}

func (a *Adaptive) headroom(limit float64) float64 {
	return max(1, headroomShare*math.Sqrt(limit))
}

// below is where a dip from l goes: below the knee, by at least one call.
func (a *Adaptive) below(l float64) float64 {
	knee := min(a.rate.value*a.base.value, l)
	return max(1, min(math.Round(dipDepth*knee), math.Ceil(knee-0.25)-1))
}

// dipIsDue spaces dips so that they stay within their budget, and closer while
// little is known of the base.
func (a *Adaptive) dipIsDue(l float64) bool {
	knee := min(a.rate.value*a.base.value, l)
	wait := min((1-a.below(l)/knee)/dipBudget, longestWait)
	weak := min(max(weakBase*a.needed()/a.base.n, 1), boost)
	return a.sinceDip > a.needed()*wait/weak
}

func (a *Adaptive) startDip(to float64, doubt bool) {
	a.low = max(a.min, min(math.Round(to), math.Round(a.limit)-1))
	a.phase, a.doubt, a.sinceDip, a.grewFrom = dipping, doubt, 0, 0
	a.from = min(a.seen.inFlight(), a.limit)
}

// settleAt cruises just above the knee.
func (a *Adaptive) settleAt(knee, anchor float64) {
	from := a.limit
	a.limit = min(max(knee+a.headroom(a.limit), a.min), a.max)
	if from-a.limit > 2*a.headroom(from) {
		a.rate = mean{} // seen too far from here
	}
	a.anchor = max(anchor, a.limit)
	a.starting, a.grewFrom, a.step = false, 0, a.headroom(a.limit)
}

// grow takes a step up, and prepares a larger one.
func (a *Adaptive) grow(from float64) {
	most := fastestGrowth * from
	if a.starting {
		most = from
	}
	a.limit = min(from+max(a.headroom(from), min(a.step, most)), a.max)
	a.step *= 2
	a.grewFrom, a.anchor = from, 0
}

// retreat lowers the limit because of overloads.
func (a *Adaptive) retreat(share float64) {
	a.overloads = share
	a.phase, a.low = retreating, max(a.min, math.Round(a.limit*(1-share/2)))
}

// judgeRetreat keeps a retreat only if it helped.
func (a *Adaptive) judgeRetreat(share float64) {
	a.phase = cruising
	if share > 0.8*a.overloads && a.seen.latency.n > 0 {
		a.tolerated = share
		return
	}
	a.limit, a.anchor = a.low, a.low
	a.rate, a.starting, a.grewFrom = mean{}, false, 0
	if share > tolerance && a.limit > a.min {
		a.retreat(share)
	}
}
