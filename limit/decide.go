package limit

import "math"

// judge decides on the limit after a segment. It reports false to see more of
// the same first.
func (a *Adaptive) judge() bool {
	s := &a.seen
	failing := s.overloaded > 0.5*s.calls()
	a.learnVariation()
	switch {
	case a.searching && s.succeeded > 0:
		a.searching = false
		a.beginClimb(trial{})
		return true
	case a.searching && s.ended < a.drain+fewSamples && s.time < longestSearch:
		return false // the calls that ended had begun at a higher limit
	case s.succeeded == 0 && s.overloaded >= fewSamples && float64(4*s.peak) > a.limit:
		a.search()
		return true
	case s.waited(), a.used() && (s.jammed() || failing && a.congested(s.high())):
		return a.judgePressed()
	default:
		return a.judgeUnpressed()
	}
}

// used reports whether enough calls run for them to be the reason of any trouble, although
// permits are free. A few calls in a process that other work keeps busy are not. A lower limit
// would help nobody, and refuse calls that meet by chance.
func (a *Adaptive) used() bool {
	return usedShare*max(a.limit, a.initial) < a.seen.all.among.value
}

// learnVariation follows the variation of latencies. Calls that queue vary less
// than calls that do not, so it falls slowly.
func (a *Adaptive) learnVariation() {
	n := a.seen.calls()
	if n <= fewSamples {
		return
	}
	v, memory := a.seen.variation(), variationMemory
	switch {
	case a.unsure:
		a.variation, a.unsure = v, n < leastSamples
	case v < a.variation:
		memory *= 8
	}
	a.variation += (v - a.variation) / memory
}

// judgeUnpressed decides after a segment in which permits were mostly free. It
// never lowers the limit. A limit that was reached grows, however few calls met it. Each of
// them was refused if the gate has no queue, and a caller that keeps to the limit never
// finds it used up.
func (a *Adaptive) judgeUnpressed() bool {
	s := &a.seen
	if s.low.latency.n >= fewSamples && !s.crowded() && !a.learn(&a.base, s.low.latency, baseMemory) {
		return false
	}
	bar := steadyLatency
	if 4*s.pressed > s.arrived {
		bar = wornLatency
	}
	slow := a.base.n > 0 && s.all.latency.value > bar*a.base.value || a.used() && s.crowded()
	if !slow && (s.pressed > 0 || s.peak >= a.Limit()) {
		a.grow(a.limit)
	}
	return true
}

// judgePressed decides after a segment in which callers waited, or in which calls
// seem to queue below the limit.
func (a *Adaptive) judgePressed() bool {
	s := &a.seen
	high, full := s.high(), s.full()
	if full && a.limit < a.mark+0.5 {
		high = s.all // no call can begin among more
	}
	if !a.learnLow(high) {
		return false
	}
	if full && s.jammed() && a.limit > a.initial/4 {
		// Latencies say little here, and each call that is let in makes it worse.
		a.because(jams, s)
		a.limit = max(a.min, math.Floor(a.limit/2))
		a.base, a.sound, a.starting, a.grewFrom = mean{}, false, false, 0
		return true
	}
	if high.latency.n < fewSamples {
		a.growBlindly()
		return true
	}
	if full && !a.overloading() && !a.congested(high) {
		a.proven = max(a.proven, high.among.value)
	}
	if high.latency.value < a.base.value && a.surprising(high.latency, a.base) &&
		!a.learn(&a.base, high.latency, baseMemory) && !a.outOfTime() {
		return false // S cannot be longer than R
	}
	switch young := full && a.young(); {
	case young && !a.outOfTime():
		return false
	case young && !a.overloading() && !s.crowded():
		a.double()
		return true
	case a.base.n < fewSamples:
		a.seekBase(high)
		return true
	case a.judgeBest(high):
		return true
	}
	a.sinceProbe += high.latency.n
	if a.grewFrom > 0 {
		a.rate = mean{}
	}
	if !a.learn(&a.rate, high.rate(), rateMemory) && !a.outOfTime() {
		return false
	}
	return a.steer(high)
}

// learnLow learns S from the calls that began among few. It reports false to see
// more of them first.
func (a *Adaptive) learnLow(high group) bool {
	low := a.seen.low.latency
	if a.seen.crowded() {
		return true // calls that share processors are slowed down by later calls
	}
	if low.n < fewSamples || a.learn(&a.base, low, baseMemory) {
		return true
	}
	if !a.outOfTime() {
		return false
	}
	if 4*low.n >= high.latency.n {
		a.base = low // of the same time as R
	}
	return true
}

// growBlindly raises a limit that is reached and from which no call has ended.
func (a *Adaptive) growBlindly() {
	most := unproven * a.proven
	if a.fresh {
		most = untried * a.initial
	}
	if s := &a.seen; !s.full() && s.all.among.n > 0 {
		a.mark = max(1, math.Floor(s.all.among.value/2)) // all calls began among few, so draw the line lower
	} else if !s.crowded() && !a.overloading() && s.overloaded == 0 && s.ended < fewSamples && a.limit < most {
		a.double()
	}
}

// seekBase finds a first S.
func (a *Adaptive) seekBase(high group) {
	a.high, a.rate, a.sound, a.evident = high, high.rate(), false, a.seen.crowded()
	switch {
	case !a.seen.full():
		a.startProbe(high.among.value/2, true)
	case !a.overloading() && !a.seen.crowded() && a.limit < untested*a.initial:
		a.base = high.latency // at twice the limit it is S, or too high
		a.double()
	default:
		a.startProbe(doubtDepth*high.among.value, true)
	}
}

// steer moves the limit by the knee, or has a probe look for it.
func (a *Adaptive) steer(high group) bool {
	full := a.seen.full()
	l := min(math.Round(a.limit), high.among.value)
	knee, room := a.knee(), a.headroom(l)
	bar := l - room/2
	if a.grewFrom > 0 {
		bar = (l + a.grewFrom) / 2
	}
	a.high, a.evident = high, a.congested(high) || a.seen.crowded()
	lowest := math.Round(a.limit) <= a.min
	switch {
	case lowest && full && !a.overloading(): // no probe is possible, so the next limit tells
		a.grow(a.limit)
	case a.grewFrom == 0 && knee+room < probeDepth*max(a.anchor, l):
		switch {
		case !a.evident && a.seen.calls() < lookAgain*a.needed() && !a.outOfTime():
			return false
		case !a.evident && full && !a.overloading() && a.limit < unproven*l:
			a.grow(a.limit)
		default:
			a.startProbe(doubtDepth*l, true)
		}
	case a.grewFrom == 0 && full && a.probeIsDue(l):
		if a.sound {
			a.startProbe(a.below(l), false)
		} else {
			a.startProbe(doubtDepth*l, true)
		}
	case knee <= bar && !a.sound && full:
		a.startProbe(max(min(doubtDepth*l, knee), l/4), true)
	case knee <= bar && a.grewFrom > 0:
		a.settleAt(max(knee, a.grewFrom-room), 0) // nothing queued at grewFrom
	case knee <= bar:
		a.settleAt(knee, max(a.anchor, l))
	case full && a.limit < unproven*l && !a.overloading() && (a.sound || !a.seen.crowded()):
		a.grow(a.limit)
	}
	return true
}

// overloading reports whether so many calls are overloaded that it is no noise.
func (a *Adaptive) overloading() bool {
	return a.seen.overloads() > a.tolerated() || a.climb.share.value > a.tolerated()
}

// congested reports whether the calls that began among many were so much slower
// than the base that it is no accident.
func (a *Adaptive) congested(high group) bool {
	return a.base.n >= fewSamples && high.latency.n >= fewSamples &&
		a.base.value < probeDepth*high.latency.value && a.differ(high.latency, a.base, proof)
}

// judgeBest goes back to the limit at which most calls succeeded if far fewer
// succeed now. Below that limit S was taken for too short. Above it calls are
// overloaded.
func (a *Adaptive) judgeBest(high group) (undone bool) {
	l := high.among.value
	if !a.seen.full() {
		a.here = trial{}
		return false
	}
	if a.here.from == 0 || math.Abs(l-a.here.from) > max(nearby*a.here.from, 0.6) {
		a.here = trial{from: l}
	}
	a.here.successes.add(a.seen.successes(), math.Inf(1))
	now, best := a.here.successes, &a.best
	switch {
	case now.n+a.seen.overloaded < leastSamples:
		return false
	case best.from == 0 || now.value >= best.successes.value || math.Abs(l-best.from) <= max(nearby*best.from, 0.6):
		*best = a.here
		return false
	case l < best.from && now.value > 0.95*best.successes.value:
		*best = a.here
		return false
	case !fewer(now, best.successes):
		return false
	case l < best.from:
		a.base, a.sound = high.latency, false
	case a.seen.overloaded == 0:
		return false
	}
	a.because(wasBetter, &a.seen)
	a.limit, a.starting, a.grewFrom, a.step, a.anchor = best.from, false, 0, a.headroom(best.from), 0
	return true
}

// fewer reports whether fewer calls succeed now than before, beyond accident.
func fewer(now, before mean) bool {
	bar := max(worse, 2*math.Sqrt(1/max(now.n, 1)+1/before.n))
	return now.value < before.value*(1-bar)
}

// settleAt cruises just above the knee.
func (a *Adaptive) settleAt(knee, anchor float64) {
	a.because(queues, &a.seen)
	from := a.limit
	a.limit = min(max(knee+a.headroom(a.limit), a.min), a.max)
	a.anchor = max(anchor, a.limit)
	if from-a.limit > 2*a.headroom(from) {
		a.rate = mean{} // it was measured too far from here
	}
	a.starting, a.grewFrom, a.step = false, 0, a.headroom(a.limit)
	a.mark = min(a.mark, max(1, math.Round(probeDepth*knee)))
}

// grow takes a step up, and prepares a larger one.
func (a *Adaptive) grow(from float64) {
	a.because(latencySteady, &a.seen)
	most := from // slow start, as far as the limit was proven before
	if from > a.proven/2 && !a.starting {
		most = steadyGrowth * from
	}
	a.limit = min(from+max(a.headroom(from), min(a.step, most)), a.max)
	a.step *= 2
	a.grewFrom, a.anchor = from, 0
}

// double raises the limit without evidence for or against it.
func (a *Adaptive) double() {
	a.because(latencyUnknown, &a.seen)
	a.grewFrom, a.anchor = a.limit, 0
	a.limit = min(2*a.limit, a.max)
}

// search halves the limit while no call succeeds at all. At the minimum it waits
// for the calls admitted before to end, and then begins again at the top, since
// lowering the limit did not help.
func (a *Adaptive) search() {
	a.because(failing, &a.seen)
	a.base, a.sound, a.grewFrom, a.anchor = mean{}, false, 0, 0
	if !a.searching {
		a.before = a.best.from
	}
	if a.limit > a.min {
		a.limit, a.bottom = max(a.min, math.Floor(a.limit/2)), 0
	} else if a.bottom += a.seen.time; a.bottom >= longestHold {
		a.limit = min(max(a.best.from, a.initial), a.max)
	}
	a.searching, a.mark, a.drain = true, a.limit, a.level
}
