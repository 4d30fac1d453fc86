package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/throttle"
)

var throttleReadings = []reading[throttle.TargetStats]{
	{
		"probability", "Probability with which calls of a method and class are refused now.",
		prometheus.GaugeValue, func(s *throttle.TargetStats) float64 { return s.Probability },
	},
	{
		"accepted_calls_total", "Calls that the target accepted.",
		prometheus.CounterValue, func(s *throttle.TargetStats) float64 { return float64(s.Accepted) },
	},
	{
		"rejected_calls_total", "Calls that were sent and that the target refused.",
		prometheus.CounterValue, func(s *throttle.TargetStats) float64 { return float64(s.Rejected) },
	},
	{
		"allowed_calls_total", "Calls that the throttle let through.",
		prometheus.CounterValue, func(s *throttle.TargetStats) float64 { return float64(s.Allowed) },
	},
	{
		"refused_calls_total", "Calls that the throttle refused.",
		prometheus.CounterValue, func(s *throttle.TargetStats) float64 { return float64(s.Refused) },
	},
}

// A throttleSeries holds the metrics of one throttle.
type throttleSeries struct {
	throttle *throttle.Throttle
	targets  *prometheus.Desc
	readings table[throttle.TargetStats]
}

func newThrottleSeries(t *throttle.Throttle) *throttleSeries {
	of := describer{"throttle", prometheus.Labels{"throttle": t.Name()}}
	return &throttleSeries{
		throttle: t,
		readings: newTable(of, throttleReadings, "target", "method", "class"),
		targets:  of.desc("targets", "Triples of a target, a method and a class that there are: those that were called."),
	}
}

func (s *throttleSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.targets
	s.readings.describe(ch)
}

func (s *throttleSeries) collect(ch chan<- prometheus.Metric) {
	now := s.throttle.Stats()
	ch <- prometheus.MustNewConstMetric(s.targets, prometheus.GaugeValue, float64(len(now)))
	for i := range now {
		s.readings.collect(ch, &now[i], now[i].Target, now[i].Method, now[i].Class)
	}
}
