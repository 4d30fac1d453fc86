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

// A breakerSeries holds the metrics of one breaker.
type breakerSeries struct {
	breaker  *breaker.Breaker
	circuits *prometheus.Desc
	state    *prometheus.Desc
	readings table[breaker.CircuitStats]
}

func newBreakerSeries(b *breaker.Breaker) *breakerSeries {
	of := describer{"breaker", prometheus.Labels{"breaker": b.Name()}}
	return &breakerSeries{
		breaker:  b,
		readings: newTable(of, circuitReadings, "target", "method"),
		circuits: of.desc("circuits", "Circuits that there are: one for each method of a target that was called."),
		state:    of.desc("state", "1 for the state that the circuit is in, 0 for the others.", "target", "method", "state"),
	}
}

func (s *breakerSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.circuits
	ch <- s.state
	s.readings.describe(ch)
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
		s.readings.collect(ch, c, c.Target, c.Method)
	}
}
