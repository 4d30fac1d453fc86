package limit

import "math"

// A climb finds the limit at which most calls succeed a second, by trying one after
// the other. It is how Adaptive works while many calls are overloaded. A handler that
// ends at its caller's deadline hides how long its call would have taken, so latencies
// say nothing then, and a climb uses none.
//
// Each trial lasts until the calls that began before it have ended, and then until
// enough calls have succeeded, or should have. First comes a scan, which halves the
// limit until clearly fewer calls succeed. After a search, and where far more calls
// succeed without overloads, it doubles the limit first, because the trouble may be over.
// From then on the neighbours of the best limit are tried, in ever smaller steps, and
// again after a rest that grows.
//
// Failures that do not depend on the limit say nothing about it. If half of the limit
// serves clearly fewer calls and as large a share of them is overloaded, the climb ends, and
// that share is tolerated from then on.
type climb struct {
	share  mean    // share of the calls that were overloaded of late
	usual  mean    // share of the calls that are overloaded whatever the limit
	strain float64 // seconds for which that was too large

	on       bool
	scanning bool
	sure     bool    // the trial ended with enough calls, not by the clock
	skipped  bool    // the scan left out limits that in flight did not come down to
	seen     segment // of the trial, or of the strain
	at       float64 // the limit on trial
	best     trial
	clean    bool    // few calls were overloaded at the best limit
	up       bool    // the limit on trial is above the best one
	failed   int     // directions in a row in which it was no better
	factor   float64 // between a limit and the next one
	drain    float64 // calls that must end before the trial begins
	waiting  float64 // seconds that they have for it
	took     float64 // seconds of the last trial
	rest     float64 // seconds until the neighbours are tried again
	rests    float64 // trials that the next rest lasts
}

// A trial is how many calls succeed at a limit.
type trial struct {
	from      float64 // the limit; 0 if there is no trial
	successes mean    // a second
	overloads float64 // share of the calls
}

// The parameters of a climb. DESIGN.md explains the main ones.
const (
	shareMemory          = 32.0       // calls
	strained             = 0.5        // seconds of overloads before a climb begins
	strainTimes          = 4.0        // mean latencies of the same
	hopeless             = 0.75       // share of overloads that begins a climb while permits are free
	coarseStep           = 2.0        // factor between a limit and the next one, at first
	finestStep           = 1.2        // and at last
	coarseCalls          = 25.0       // successes in a trial of a coarse step
	fineCalls            = 60.0       // in one of a finer step
	clearly              = 3.0        // standard errors that end a trial early
	scanTime             = 0.7        // seconds of a trial of the scan at most, or scanTimes
	scanTimes            = 6.0        // mean latencies
	trialTime            = 2.0        // seconds of another trial at most, or trialTimes
	trialTimes           = 10.0       // mean latencies
	gain, loss           = 1.05, 0.92 // of the best, from which a higher and a lower limit are better
	clearGain, clearLoss = 1.2, 0.85  // the same where only the higher one has overloads
	past                 = 0.6        // of the best, below which the scan ends
	queueTime            = 0.5        // seconds for which a queue may be too long for a lower limit
	quickCalls           = 8.0        // successes in a first trial, or in one that is much better
	quickly              = 1.5        // of the best, from which a limit is much better
	restCalls            = 100.0      // successes after which a rest is judged
	leastTrial           = 0.1        // seconds, or leastTimes
	leastTimes           = 2.0        // mean latencies
	longestTrial         = 5.0        // seconds
	shortestRest         = 12.0       // trials
	longestRest          = 48.0       // trials
	bestMemory           = 400.0      // successes
	usualMemory          = 1000.0     // calls
	sameShare            = 0.75       // of the overloads at another limit, from which they do not depend on it
)

// watch looks for calls that are overloaded again and again, and begins a climb.
func (a *Adaptive) watch(w Window) {
	c := &a.climb
	c.count(w)
	full := 2*w.Pressed > w.Arrived
	if c.share.value <= a.tolerated() || !full && (c.share.value <= hopeless || float64(4*w.MaxInFlight) < a.limit) {
		c.strain, c.seen = 0, segment{}
		return
	}
	c.seen.add(w)
	if w.Overloaded > 0 || w.Completed() == 0 {
		c.strain += w.Duration.Seconds()
	}
	if !a.searching && c.share.n >= shareMemory && c.strain >= max(strained, min(strainTimes*a.latency, longestHold)) {
		a.beginClimb(trial{math.Round(a.limit), c.seen.successes(), c.seen.overloads()})
	}
}

// beginClimb begins with a trial of the limit, unless its successes are known.
func (a *Adaptive) beginClimb(known trial) {
	c := &a.climb
	a.because(climbing, &c.seen)
	*c = climb{
		on: true, scanning: true, factor: coarseStep, rests: shortestRest,
		share: c.share, usual: c.usual, best: known, at: math.Round(a.limit),
	}
	a.phase = cruising
	if known.from > 0 {
		c.next(a, false)
	}
}

// tolerated is the share of overloads that says nothing about the limit.
func (a *Adaptive) tolerated() float64 { return tolerance + a.climb.usual.value }

func (c *climb) count(w Window) {
	if n := float64(w.Succeeded + w.Overloaded); n > 0 {
		c.share.add(mean{n, float64(w.Overloaded) / n}, shareMemory)
		if c.share.value < c.usual.value {
			c.usual.add(mean{n, c.share.value}, usualMemory)
		}
	}
}

// endClimb goes back to latencies, with no S.
func (a *Adaptive) endClimb() {
	l := a.climb.at
	a.because(fellBack, &a.climb.seen)
	a.limit, a.starting, a.grewFrom, a.step, a.anchor = l, false, 0, a.headroom(l), 0
	a.base, a.rate, a.sound, a.mark = mean{}, mean{}, false, max(1, math.Floor(l/2))
	a.best, a.here, a.seen = trial{}, trial{}, segment{}
	a.climb = climb{usual: a.climb.usual}
}

// try begins a trial.
func (c *climb) try(l, level float64) {
	c.at, c.drain, c.waiting, c.seen = l, level, 0, segment{}
}

// step takes a window.
func (c *climb) step(a *Adaptive, w Window) {
	c.count(w)
	t := w.Duration.Seconds()
	c.rest -= t
	if c.drain > 0 {
		c.drain -= float64(w.Completed())
		c.waiting += t
		if late := w.Overloaded > 0; late && c.drain <= 0 && c.scanning && !c.up && c.waiting < queueTime {
			c.drain = 1e-9 // the calls may have waited for longer than they will at this limit
		}
		if c.waiting < max(trialTime, min(3*a.latency, longestTrial)) {
			return
		}
		c.drain = 0
		if c.scanning && float64(w.MaxInFlight) > c.at && c.at > a.min {
			c.skipped = true
			c.next(a, false) // a limit that is not reached tells nothing
		}
		return
	}
	c.seen.add(w)
	got, expected := c.seen.succeeded, c.best.successes.value*c.seen.time
	off := math.Abs(got-expected) / math.Sqrt(got+expected+1)
	enough, long := fineCalls, max(trialTime, min(trialTimes*a.latency, longestTrial))
	if c.factor == coarseStep {
		enough, long = coarseCalls, max(scanTime, min(scanTimes*a.latency, longestTrial))
	}
	if c.scanning && (c.best.from == 0 || c.up && got > quickly*expected) {
		enough = quickCalls
	}
	resting := c.at == c.best.from
	if resting {
		enough = restCalls
	}
	done := max(got, expected) >= enough || !resting && off > clearly && got+expected >= leastSamples
	c.sure = done
	if c.seen.time >= long || done && c.seen.time >= max(leastTrial, leastTimes*a.latency) {
		c.judge(a, off > surprise)
	}
}

// judge decides after a trial. changed is true if its successes differ from the best
// limit's by more than chance.
func (c *climb) judge(a *Adaptive, changed bool) {
	x := c.seen.successes()
	c.took, a.limit = c.waiting+c.seen.time, c.at
	overloaded := c.seen.overloads() > a.tolerated()
	more := x.value > c.best.successes.value
	tooHigh := c.up && c.at != c.best.from && overloaded && !c.better(x, overloaded)
	switch {
	case !c.seen.full() && c.share.value <= hopeless && !tooHigh:
		a.endClimb()
	case c.best.from == 0: // after a search. The trouble may be over
		c.keep(x, overloaded)
		c.next(a, true)
	case c.scanning:
		c.judgeScan(a, x, overloaded)
	case c.at == c.best.from && !changed:
		c.goOnResting(a, x, overloaded)
	case changed && more && !overloaded && !c.up, changed && more && !overloaded && c.at == c.best.from:
		a.endClimb() // more at the same limit or at a lower one, so the trouble is over
	case c.at == c.best.from: // fewer, or more with overloads, so begin again
		c.keep(x, overloaded)
		c.factor, c.failed, c.rests, c.scanning = coarseStep, 0, shortestRest, overloaded
		c.next(a, false)
	case c.better(x, overloaded):
		c.keep(x, overloaded)
		c.failed, c.rests = 0, shortestRest
		c.next(a, c.up)
	default:
		c.failed++
		c.next(a, !c.up)
	}
}

// judgeScan decides after a trial of the scan.
func (c *climb) judgeScan(a *Adaptive, x mean, overloaded bool) {
	before := c.best
	better, worse := c.better(x, overloaded), x.value < past*before.successes.value
	if worse && c.sure && overloaded && !c.up && c.seen.overloads() > sameShare*before.overloads {
		// Fewer calls succeed, and as many of them are overloaded. So that is not the limit's fault.
		c.at, c.usual = before.from, mean{usualMemory, before.overloads}
		a.endClimb()
		return
	}
	if better {
		c.keep(x, overloaded)
	}
	if over := better && !overloaded && x.value > quickly*before.successes.value; c.up || over {
		c.next(a, better) // further up, or up again because the trouble may be over
		return
	}
	if c.at <= a.min || worse && (c.sure || !overloaded) {
		c.scanning, c.failed = false, 0
		if !c.skipped {
			c.factor = math.Sqrt(coarseStep)
		}
	}
	c.next(a, !better && !c.scanning)
}

// goOnResting decides after some time at the best limit.
func (c *climb) goOnResting(a *Adaptive, x mean, overloaded bool) {
	c.clean, c.seen = !overloaded, segment{}
	c.best.successes.add(x, bestMemory)
	if c.rest <= 0 {
		c.factor, c.failed = math.Sqrt(coarseStep), 0
		c.next(a, !c.up)
	}
}

// better reports whether the limit on trial is better than the best one. A higher limit is
// better if clearly more calls succeed, a lower one unless clearly fewer do.
func (c *climb) better(x mean, overloaded bool) bool {
	higher, lower := gain, loss
	switch {
	case overloaded && c.clean:
		higher = clearGain
	case !overloaded && !c.clean:
		lower = clearLoss
	}
	if c.up {
		return x.value > higher*c.best.successes.value
	}
	return x.value >= lower*c.best.successes.value
}

// keep makes the limit on trial the best one.
func (c *climb) keep(x mean, overloaded bool) {
	c.best, c.clean = trial{c.at, x, c.seen.overloads()}, !overloaded
}

// next tries the next limit, or rests.
func (c *climb) next(a *Adaptive, up bool) {
	level := min(c.at, a.level)
	if a.told.why = climbing; c.seen.time > 0 {
		a.because(climbing, &c.seen)
	}
	if c.scanning && up {
		c.up = true
		c.try(min(a.max, max(c.at*coarseStep, a.before)), 0)
		a.before = 0
		return
	}
	if c.scanning {
		from := c.at
		if c.up {
			from = c.best.from
		}
		c.up = false
		c.try(max(a.min, math.Floor(from/coarseStep)), level)
		return
	}
	for {
		for ; c.failed < 2; c.failed++ {
			if l := min(max(c.neighbour(up), a.min), a.max); l != c.best.from {
				c.up = up
				c.try(l, level)
				return
			}
			up = !up
		}
		if c.factor <= finestStep || math.Round(c.best.from*c.factor) <= c.best.from+1 {
			break
		}
		c.factor, c.failed = max(math.Sqrt(c.factor), finestStep), 0
	}
	a.told.why = climbed
	c.try(c.best.from, level)
	c.rest = c.rests * c.took
	c.rests = min(2*c.rests, longestRest)
}

// neighbour is the next limit above or below the best one.
func (c *climb) neighbour(up bool) float64 {
	best := c.best.from
	if up {
		return max(best+1, math.Round(best*c.factor))
	}
	return min(best-1, math.Round(best/c.factor))
}
