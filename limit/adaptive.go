package limit

import (
	"cmp"
	"math"

	"github.com/weir-go/weir/internal/check"
)

// AdaptiveConfig configures [NewAdaptive]. Every zero field means its default.
type AdaptiveConfig struct {
	// Initial is the limit before anything is known; default 32.
	Initial int
	// Min and Max bound the limit; default 1 and the constant Max.
	Min, Max int
}

// Adaptive finds the knee of a server, which is the fewest calls in flight at its full
// throughput. It needs no tuning.
//
// The law. With N calls in flight, latency R and throughput X, Little's law
// says N = X R (Little, "A Proof for the Queuing Formula: L = λW", Operations
// Research 9(3), 1961). Below the knee R is the bare service time S and X
// grows with N. Beyond it X stays at the server's capacity and R grows with N.
// So the knee is at N* = X S (Kleinrock, "Power and Deterministic Rules of
// Thumb", ICC 1979, finds the same operating point; BBR, Cardwell et al., ACM
// Queue 14(5), 2016, steers a network path by the same two quantities). The
// limit is N* plus a little headroom, so that a worker never waits for the next
// call.
//
// S is the latency of calls that began while few others were in flight, R the
// latency of calls that began at the limit. Under a steady overload no call
// begins among few, so a probe holds newcomers back for a moment now and then.
//
// A limit is not lowered without proof of congestion:
//   - While permits are free the limit falls only if a quarter of it is in use, and
//     goroutines wait for a processor, or most calls are overloaded and slow, or none succeeds.
//   - A limit that is reached grows unless R is above S by more than chance
//     explains, even if only one call reaches it. It grows by the clock if no call ends.
//   - A probe for an unknown S ends after 100 ms without that proof.
//   - A limit at which far fewer calls succeed than at another one is given up
//     for that one.
//
// While many calls are overloaded at the limit, latencies end at the callers'
// deadlines and hide the queue. Then the limit climbs to where most calls succeed a
// second, without regard to latencies, until permits are free again.
//
// Every estimate carries its standard error. Where N* is uncertain the upper
// end of its range is used. DESIGN.md explains the law and its parameters.
//
// Calls that succeeded and calls that were overloaded are latency samples;
// ignored calls are not.
type Adaptive struct {
	min, max, initial float64

	limit  float64 // while no probe is under way
	phase  phase
	seen   segment // since the last decision
	settle float64 // seconds until a change of the limit has worked through

	// Estimates.
	base      mean    // S
	rate      mean    // X
	variation float64 // squared coefficient of variation of single latencies
	unsure    bool    // variation is a guess
	mark      float64 // a call that begins among at most so many shows S
	sound     bool    // base was measured where nothing queued
	latency   float64 // the last mean latency, in seconds
	age       float64 // seconds in which calls ended or waited
	fresh     bool    // no call has ended yet

	// Growth.
	starting bool    // nothing has queued yet
	grewFrom float64 // the limit before the last step up; 0 if that is settled
	step     float64 // the next step up
	anchor   float64 // the highest limit since base was measured last
	proven   float64 // the highest number in flight from which calls have ended

	// The probe that is under way, or was last.
	low        float64 // the limit during the probe
	high       group   // the calls at the limit before the probe
	doubt      bool    // base is not believed
	evident    bool    // R is above S beyond chance, or goroutines wait for a processor
	loaded     bool    // callers waited for permits when the probe began
	served     float64 // successes a second before the probe
	hold       float64 // seconds for which this phase lasts at most
	drain      float64 // calls that must end before in flight is down to low
	level      float64 // in flight at most, in the last window
	sinceProbe float64 // samples since the last probe

	best, here trial
	before     float64 // best.from when the search began
	searching  bool    // no call succeeds, see search
	climb      climb   // the law while many calls are overloaded
	bottom     float64 // seconds for which the search was at the minimum

	told note // of the last change
}

type phase int

const (
	cruising phase = iota
	held           // a probe holds newcomers, so that calls begin among fewer
	awaiting       // until the calls that began then have ended
)

// The parameters. DESIGN.md explains the main ones.
const (
	headroomShare = 0.2         // headroom is this times the square root of the limit, at least 1
	fine, coarse  = 0.05, 0.125 // relative precision of a mean, at best and at worst
	rough         = 0.14        // the same while starting

	fewSamples   = 4 // fewer say nothing
	leastSamples = 16
	mostSamples  = 4096

	baseMemory      = 16.0 // segments that base remembers
	rateMemory      = 6.0  // segments that rate remembers
	variationMemory = 8.0  // segments in which variation rises; it falls eight times as slowly

	proof         = 3.0  // standard errors between R and S that prove congestion
	surprise      = 4.0  // standard errors after which an estimate is replaced
	lookAgain     = 2.5  // segments to look at before that
	probeDepth    = 0.85 // of the knee
	doubtDepth    = 0.6  // of the limit, where base is not believed
	probeBudget   = 0.01 // of the throughput
	longestWait   = 40.0 // segments between two probes
	weakBase      = 4.0  // segments behind a base that is not weak
	boost         = 8.0  // how much more often a weak base is measured
	steadyGrowth  = 0.12 // of the limit, once it was proven
	tolerance     = 0.1  // of the calls; fewer overloads are no reason to try a lower limit
	worse         = 0.15 // of the successes; a limit that costs more is given up
	nearby        = 0.1  // limits that differ by less are one
	jammedShare   = 0.5  // the same where latencies say little
	crowdedShare  = 0.1  // of the latency that is spent waiting for a processor
	steadyLatency = 1.15 // of S; a mean above it is slower
	wornLatency   = 1.25 // the same where a quarter of the calls find no permit free
	usedShare     = 0.25 // of the limit and of the initial one; fewer calls in flight are not the cause
	lossless      = 0.9  // of the successes a second, which a lower limit has to keep

	untried  = 16.0 // times the initial limit, for growth before any call has ended
	unproven = 4.0  // times the number in flight from which calls have ended
	untested = 2.0  // times the initial limit, for growth before S is known

	patience      = 0.1 // seconds after which callers get a decision, and a probe without proof ends
	hurry         = 2.0 // mean latencies after which callers get a decision, if that is longer
	longestHold   = 2.0 // seconds, with proof
	longestSearch = 1.0 // seconds for each limit
	settleTimes   = 1.5 // mean latencies for a change of the limit to work through
	roundTrips    = 3.0 // mean latencies of a probe
	awaitTimes    = 5.0 // mean latencies after which all calls of a probe have ended
	youth         = 4.0 // mean latencies before which only short calls have ended
)

// NewAdaptive returns an Adaptive. It returns an error that wraps ErrConfig if
// a field is out of range.
func NewAdaptive(c AdaptiveConfig) (*Adaptive, error) {
	c.Min, c.Max = cmp.Or(c.Min, 1), cmp.Or(c.Max, Max)
	c.Initial = cmp.Or(c.Initial, min(max(32, c.Min), c.Max))
	var bad check.Errors
	bounds(&bad, c.Initial, c.Min, c.Max)
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	l := float64(c.Initial)
	return &Adaptive{
		min: float64(c.Min), max: float64(c.Max), initial: l, limit: l, step: l, proven: l,
		mark: math.Ceil(l / 2), variation: 1, unsure: true, fresh: true, starting: true,
	}, nil
}

// Limit returns the current limit.
func (a *Adaptive) Limit() int {
	l := math.Round(a.limit)
	if a.climb.on {
		l = a.climb.at
	}
	if a.Probing() {
		l = a.low
	}
	return int(min(max(l, a.min), a.max))
}

// Min implements Floored.
func (a *Adaptive) Min() int { return int(a.min) }

// Mark implements Prober.
func (a *Adaptive) Mark() int { return int(a.mark) }

// Probing implements Prober.
func (a *Adaptive) Probing() bool { return a.phase == held || a.phase == awaiting && a.staysLow() }

// Update implements Algorithm.
func (a *Adaptive) Update(w Window) int {
	if w.Duration <= 0 || w.Completed()+w.Pressed == 0 {
		return a.Limit()
	}
	if a.climb.on {
		a.track(w, float64(a.Limit()))
		a.climb.step(a, w)
		return a.Limit()
	}
	if a.watch(w); a.climb.on {
		return a.Limit()
	}
	if a.phase == cruising && a.settle > 0 {
		a.settle -= w.Duration.Seconds()
		return a.Limit()
	}
	before := float64(a.Limit())
	a.see(w, before)
	if a.phase != cruising && a.loaded && w.Pressed == 0 && !a.seen.crowded() {
		a.because(loadGone, &a.seen)
		a.phase, a.seen = cruising, segment{} // the load is gone, and so is the other side of the comparison
		return a.Limit()
	}
	if !a.decide() {
		return a.Limit()
	}
	if l := float64(a.Limit()); a.phase == cruising && l != before {
		longest := 0.25
		if l < 0.9*before {
			longest = 1
		}
		a.settle = min(settleTimes*a.seen.all.latency.value, longest)
	}
	a.seen = segment{}
	return a.Limit()
}

// see adds a window to the current segment.
func (a *Adaptive) see(w Window, limit float64) {
	if a.phase == cruising && 2*w.Pressed > w.Arrived && !a.seen.full() {
		// The limit is reached just now. The time for a decision begins here.
		if a.seen.low.latency.n > 0 && !a.seen.crowded() {
			a.learn(&a.base, a.seen.low.latency, baseMemory)
		}
		a.seen = segment{}
	}
	a.seen.add(w)
	a.track(w, limit)
}

// track updates the estimates that follow every window.
func (a *Adaptive) track(w Window, limit float64) {
	a.age += w.Duration.Seconds()
	a.fresh = a.fresh && w.Completed() == 0
	if w.Ran.Calls > 0 {
		a.latency = w.Ran.Mean.Seconds()
	}
	a.level = min(limit, float64(w.MaxInFlight))
}

// decide decides once enough was seen. It reports false to see more first.
func (a *Adaptive) decide() bool {
	s := &a.seen
	switch a.phase {
	case held:
		a.keepHolding()
		return false
	case awaiting:
		if s.time < a.hold && !(a.staysLow() && s.calls() >= a.needed()) {
			return false
		}
		a.phase = cruising
		a.because(measured, s)
		a.judgeProbe()
		return true
	default:
		return (s.calls() >= a.needed() || a.outOfTime()) && a.judge()
	}
}

// young reports whether the gate has not seen calls for long enough to know any
// but the quick ones.
func (a *Adaptive) young() bool {
	return a.age < youth*a.seen.all.latency.value && a.limit < untested*a.initial
}

// outOfTime reports whether callers wait, so that a decision is due although few calls
// have ended.
func (a *Adaptive) outOfTime() bool {
	s := &a.seen
	if !s.full() {
		return false
	}
	t := hurry * max(s.all.latency.value, a.latency)
	switch {
	case a.starting:
		t = min(t, 2.5*patience)
	case s.calls() > 0:
		t = min(t, 1)
	}
	if a.young() {
		t = 0
	}
	return s.time >= max(t, patience)
}

// needed is the number of samples of a segment. They bring the standard
// error of a mean down to a fraction of a step of the limit, and at least one
// for each call in flight.
func (a *Adaptive) needed() float64 {
	d := min(max(a.headroom(a.limit)/a.limit, fine), coarse)
	if a.starting {
		d = rough
	}
	return min(max(a.variation/(d*d), leastSamples, a.limit), mostSamples)
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

// surprising reports whether v and m differ so much that it is no accident.
func (a *Adaptive) surprising(v, m mean) bool { return a.differ(v, m, surprise) }

// differ reports whether v and m differ by more than z standard errors.
func (a *Adaptive) differ(v, m mean, z float64) bool {
	off := math.Abs(v.value - m.value)
	return off > 0.02*m.value && off > z*math.Sqrt(a.variation*(v.value*v.value/v.n+m.value*m.value/m.n))
}

// knee is the upper end of the range of N*, one standard error up.
func (a *Adaptive) knee() float64 {
	se := math.Sqrt(a.variation * (1/a.rate.n + 1/a.base.n))
	return a.rate.value * a.base.value * (1 + min(se, 0.5))
}

// headroom is the part of the limit above the knee. It hides the hand-over of a permit.
func (a *Adaptive) headroom(limit float64) float64 {
	return max(1, headroomShare*math.Sqrt(limit))
}
