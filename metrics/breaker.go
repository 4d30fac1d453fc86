package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/breaker"
)

var circuitReadings = []reading[breaker.CircuitStats]{
	{
		"allowed_calls_total", "Calls that the circuit let through.",
		prometheus.CounterValue, func(s *breaker.CircuitStats) float64 { return float64(s.Allowed) },
	},
	{
		"refused_calls_total", "Calls that the circuit refused.",
		prometheus.CounterValue, func(s *breaker.CircuitStats) float64 { return float64(s.Refused) },
	},
	{
		"failed_calls_total", "Calls that the circuit let through and that failed, slow ones included.",
		prometheus.CounterValue, func(s *breaker.CircuitStats) float64 { return float64(s.Failed) },
	},
	{
		"openings_total", "How often the circuit opened, also anew after a probe failed.",
		prometheus.CounterValue, func(s *breaker.CircuitStats) float64 { return float64(s.Opened) },
	},
}

// breakerStates is the closed set of values of the label state.
var breakerStates = []breaker.State{
	breaker.Closed, breaker.HalfOpen, breaker.Open,
}

// A breakerSeries holds the metrics of one breaker. Its name is part of the
// descriptors, so that a registry notices two breakers of one name.
type breakerSeries struct {
	breaker  *breaker.Breaker
	circuits *prometheus.Desc
	state    *prometheus.Desc
	readings []*prometheus.Desc // in the order of circuitReadings
}

func newBreakerSeries(b *breaker.Breaker) *breakerSeries {
	name := prometheus.Labels{"breaker": b.Name()}
	desc := func(series, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "breaker", series), help, labels, name)
	}
	s := &breakerSeries{
		breaker:  b,
		circuits: desc("circuits", "Circuits that there are: one for each method of a target that was called."),
		state:    desc("state", "1 for the state that the circuit is in, 0 for the others.", "target", "method", "state"),
	}
	for _, r := range circuitReadings {
		s.readings = append(s.readings, desc(r.name, r.help, "target", "method"))
	}
	return s
}

func (s *breakerSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.circuits
	ch <- s.state
	for _, d := range s.readings {
		ch <- d
	}
}

func (s *breakerSeries) collect(ch chan<- prometheus.Metric) {
	now := s.breaker.Stats()
	ch <- prometheus.MustNewConstMetric(s.circuits, prometheus.GaugeValue, float64(len(now)))
	for i := range now {
		c := &now[i]
		for _, state := range breakerStates {
			ch <- prometheus.MustNewConstMetric(s.state, prometheus.GaugeValue,
				oneIf(c.State == state), c.Target, c.Method, state.String())
		}
		for j, r := range circuitReadings {
			ch <- prometheus.MustNewConstMetric(s.readings[j], r.kind, r.value(c), c.Target, c.Method)
		}
	}
}
