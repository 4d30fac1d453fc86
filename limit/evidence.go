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

// A segment is what was seen while the limit stood still, over as many windows
// as it took to be sure. Times are in seconds.
type segment struct {
	latency          mean // of the successes
	squares          float64
	residence, time  float64
	pressed, arrived int
	overloaded       float64
	last             Window
}

func (s *segment) add(w Window) {
	n, l, d := float64(w.Succeeded), max(w.MeanLatency, 1).Seconds(), w.LatencyDeviation.Seconds()
	s.latency.add(mean{n, l}, math.Inf(1))
	s.squares += n * (l*l + d*d)
	s.residence += w.InFlight * w.Duration.Seconds()
	s.time += w.Duration.Seconds()
	s.pressed += w.Pressed
	s.arrived += w.Arrived
	s.overloaded += float64(w.Overloaded)
	s.last = w
}

func (s *segment) calls() float64 { return s.latency.n + s.overloaded }

// inFlight is the mean number of calls in flight (Little's law).
func (s *segment) inFlight() float64 { return s.residence / s.time }

// rising reports whether at the end far more calls were in flight than before: a
// change is under way, and the mean says little about now.
func (s *segment) rising() bool {
	return s.last.Pressed > 0 && !s.full() || float64(s.last.MaxInFlight) > 3*s.inFlight()+3
}

// rate is the throughput that the calls in flight and their latency imply. Of
// a mix in which some calls fail it is that of as many successes.
func (s *segment) rate() mean { return mean{s.latency.n, s.inFlight() / s.latency.value} }

// full reports whether most arrivals found no permit free: only then does the
// segment say what the server can do, rather than what was asked of it.
func (s *segment) full() bool { return 2*s.pressed > s.arrived }

// variation is the squared coefficient of variation of single latencies.
func (s *segment) variation() float64 {
	m := s.latency.value
	return max(0, s.squares/s.latency.n-m*m) / (m * m)
}
