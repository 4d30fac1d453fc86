package limit

import "math"

// startProbe holds newcomers until no more than to calls are in flight. doubt says
// that base is not believed.
func (a *Adaptive) startProbe(to float64, doubt bool) {
	a.because(measuring, &a.seen)
	if doubt {
		a.told.why = suspecting
	}
	a.low = max(a.min, min(math.Round(to), math.Round(a.limit)-1))
	a.mark, a.loaded, a.served = a.low, a.seen.full(), a.seen.successes().value
	a.phase, a.doubt, a.sinceProbe, a.grewFrom = held, doubt, 0, 0
	a.drain = max(0, a.level-a.low)
	t := roundTrips * a.high.latency.value
	a.hold = min(max(t, patience), longestHold)
	if doubt && !a.evident {
		a.hold = min(max(t, .02), patience)
	}
}

// staysLow reports whether the limit stays low until the probe is judged. Without
// proof of congestion callers do not wait for that.
func (a *Adaptive) staysLow() bool { return a.doubt && a.evident }

// keepHolding ends the hold once enough calls have begun below the limit, or by
// the clock.
func (a *Adaptive) keepHolding() {
	s, r := &a.seen, a.seen.all.latency.value
	switch {
	case a.staysLow():
		if s.time < a.hold && (s.ended < a.drain || s.time < settleTimes*max(r, a.high.latency.value/2)) {
			return
		}
		a.phase, a.hold = awaiting, min(max(roundTrips*r, patience), longestHold)
		a.seen = segment{} // the calls that began before have ended
	case s.ended >= a.drain+a.needed() || s.time >= a.hold:
		a.phase, a.hold = awaiting, s.time+min(awaitTimes*r, 1)
		a.because(measured, s)
	}
}

// judgeProbe decides when the calls that began below the limit have ended.
func (a *Adaptive) judgeProbe() {
	low, from := a.seen.low, a.high.among.value
	if a.staysLow() {
		low = a.seen.all
	}
	if low.latency.n < fewSamples {
		a.judgeNothing()
		return
	}
	if h := a.seen.high(); !a.evident && h.latency.n >= leastSamples {
		a.high = h
		from = h.among.value
		a.rate = h.rate()
	}
	sound := a.sound
	a.sound = true
	seen, known := low.latency, a.base.n > 0
	slower := !known || seen.value > a.base.value && a.surprising(seen, a.base)
	if known && a.doubt {
		slower = seen.value > math.Sqrt(a.base.value*a.high.latency.value)
	}
	if !sound || a.doubt && slower {
		a.base = seen
	} else if !a.learn(&a.base, seen, baseMemory) {
		a.base = seen
	}
	knee := a.knee()
	if (slower || !sound) && a.low > a.min && a.queuesAt(seen, from) {
		a.limit, a.anchor, a.grewFrom = a.low, 0, 0
		a.rate = low.rate()
		a.high, a.base, a.sound = low, mean{}, false
		a.evident = true
		a.startProbe(a.low/2, true)
		return
	}
	bar := a.limit - a.headroom(a.limit)/2
	if a.starting {
		bar = (a.low + a.limit) / 2
	}
	switch {
	case from < 0.75*a.limit && knee > probeDepth*from:
		// The limit was not reached, and nothing queued.
	case knee > bar:
		a.grow(a.limit)
	default:
		a.settleAt(knee, 0)
	}
}

// queuesAt reports whether calls queue at the limit of the probe, too, given the latency there
// and the calls in flight before. They do if the latency fell with the limit. Where goroutines
// wait for processors, latencies say less, but then as many calls succeed as before.
//
// A wrong yes lowers the limit again, and calls are refused. So while nothing has queued yet, the
// answer is no if the latency is beyond chance longer than in a queue.
func (a *Adaptive) queuesAt(latency mean, from float64) bool {
	inQueue := mean{a.high.latency.n, a.high.latency.value * a.low / from}
	if a.starting && latency.value > inQueue.value && a.differ(latency, inQueue, proof) {
		return false
	}
	return from*latency.value/a.high.latency.value < a.low+0.35*(from-a.low) ||
		a.loaded && a.seen.crowded() && a.seen.successes().value > lossless*a.served
}

// judgeNothing decides after a probe in which too few calls ended.
func (a *Adaptive) judgeNothing() {
	s := &a.seen
	switch {
	case 2*s.overloaded > s.calls():
		a.search()
	case a.evident:
		a.base, a.sound = mean{}, false
	case s.full() && !a.overloading() && a.limit < unproven*max(a.proven, a.initial):
		a.grow(a.limit)
	}
}

// below returns the limit for a probe from l. It is below the knee by at least one call.
func (a *Adaptive) below(l float64) float64 {
	knee := min(a.knee(), l)
	return max(1, min(math.Round(probeDepth*knee), math.Ceil(knee-0.25)-1))
}

// probeIsDue spaces probes so that they stay within their budget, and closer
// while little is known of the base.
func (a *Adaptive) probeIsDue(l float64) bool {
	wait := min((1-a.below(l)/min(a.knee(), l))/probeBudget, longestWait)
	weak := min(max(weakBase*a.needed()/a.base.n, 1), boost)
	return a.sinceProbe > a.needed()*wait/weak
}
