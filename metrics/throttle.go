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

// A throttleSeries holds the metrics of one throttle. Its name is part of the
// descriptors, so that a registry notices two throttles of one name.
type throttleSeries struct {
	throttle *throttle.Throttle
	targets  *prometheus.Desc
	readings []*prometheus.Desc // in the order of throttleReadings
}

func newThrottleSeries(t *throttle.Throttle) *throttleSeries {
	name := prometheus.Labels{"throttle": t.Name()}
	desc := func(series, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "throttle", series), help, labels, name)
	}
	s := &throttleSeries{
		throttle: t,
		targets:  desc("targets", "Triples of a target, a method and a class that there are: those that were called."),
	}
	for _, r := range throttleReadings {
		s.readings = append(s.readings, desc(r.name, r.help, "target", "method", "class"))
	}
	return s
}

func (s *throttleSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.targets
	for _, d := range s.readings {
		ch <- d
	}
}

func (s *throttleSeries) collect(ch chan<- prometheus.Metric) {
	now := s.throttle.Stats()
	ch <- prometheus.MustNewConstMetric(s.targets, prometheus.GaugeValue, float64(len(now)))
	for i := range now {
		for j, r := range throttleReadings {
			ch <- prometheus.MustNewConstMetric(s.readings[j], r.kind, r.value(&now[i]), now[i].Target, now[i].Method, now[i].Class)
		}
	}
}
