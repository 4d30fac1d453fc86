package limit

import "math"

// A mean is a running mean with the number of samples behind it.
type mean struct{ n, value float64 }

// add blends in a mean of n samples, remembering at most memory older ones.
func (m *mean) add(v mean, memory float64) {
	m.n = min(m.n, memory)
	if t := m.n + v.n; t > 0 {
		m.value += (v.value - m.value) * v.n / t
		m.n = t
	}
}

// sub returns the mean of the samples of m that are not in v, a part of them.
func (m mean) sub(v mean) mean {
	n := m.n - v.n
	if n < 0.5 {
		return mean{}
	}
	return mean{n, max((m.n*m.value-v.n*v.value)/n, 1e-9)}
}

// A group sums up some calls. It has their latencies in seconds, and the number of
// calls in flight when each began.
type group struct{ latency, among mean }

func (g *group) add(l Latencies) {
	n := float64(l.Calls)
	g.latency.add(mean{n, max(l.Mean, 1).Seconds()}, math.Inf(1))
	g.among.add(mean{n, l.StartInFlight}, math.Inf(1))
}

// rate is the throughput that the calls in flight and their latency imply.
func (g group) rate() mean { return mean{g.latency.n, g.among.value / g.latency.value} }

// A segment is a sum of windows. Times are in seconds.
type segment struct {
	low, all         group // the calls that ran and began among few, and all that ran
	squares          float64
	time             float64
	pressed, arrived float64
	bounded          float64
	succeeded        float64
	overloaded       float64
	ended            float64
	delay            float64 // of the scheduler, times time
	peak             int
}

func (s *segment) add(w Window) {
	if w.Ran.Calls == 0 && w.Succeeded > 0 { // a window without the newer fields
		w.Ran = Latencies{w.Succeeded, w.MeanLatency, w.LatencyDeviation, float64(w.Limit)}
	}
	s.all.add(w.Ran)
	s.low.add(w.Low)
	n, l, d := float64(w.Ran.Calls), w.Ran.Mean.Seconds(), w.Ran.Deviation.Seconds()
	s.squares += n * (l*l + d*d)
	s.succeeded += float64(w.Succeeded)
	s.time += w.Duration.Seconds()
	s.pressed += float64(w.Pressed)
	s.arrived += float64(w.Arrived)
	s.bounded += float64(w.Bounded)
	s.overloaded += float64(w.Overloaded)
	s.ended += float64(w.Completed())
	s.delay += w.SchedulerDelay.Seconds() * w.Duration.Seconds()
	s.peak = max(s.peak, w.MaxInFlight)
}

// high is the group of the calls that ran and began among many.
func (s *segment) high() group {
	return group{s.all.latency.sub(s.low.latency), s.all.among.sub(s.low.among)}
}

func (s *segment) calls() float64 { return s.all.latency.n }

// successes is the number of successes a second.
func (s *segment) successes() mean { return mean{s.succeeded, s.succeeded / s.time} }

// overloads is the share of the calls that were overloaded.
func (s *segment) overloads() float64 { return s.overloaded / max(1, s.calls()) }

// full reports whether most arrivals found no permit free.
func (s *segment) full() bool { return 2*s.pressed > s.arrived }

// waited reports whether most arrivals had to wait, for whatever permit.
func (s *segment) waited() bool { return 2*(s.pressed+s.bounded) > s.arrived }

// crowded reports whether goroutines waited for a processor for a good part of the
// latency of calls.
func (s *segment) crowded() bool {
	return s.all.latency.n > 0 && s.delay/s.time > crowdedShare*s.all.latency.value
}

// jammed reports whether goroutines wait for a processor for most of the latency of
// calls.
func (s *segment) jammed() bool {
	return s.all.latency.n > 0 && s.delay/s.time > jammedShare*s.all.latency.value
}

// variation is the squared coefficient of variation of single latencies.
func (s *segment) variation() float64 {
	m := s.all.latency
	return max(0, s.squares/m.n-m.value*m.value) / (m.value * m.value)
}
