package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/retry"
)

var retryReadings = []reading[retry.MeterStats]{
	{
		"calls_total", "Calls that gRPC began to send.",
		prometheus.CounterValue, func(s *retry.MeterStats) float64 { return float64(s.Calls) },
	},
	{
		"retries_total", "Attempts after the first ones of calls, without transparent ones.",
		prometheus.CounterValue, func(s *retry.MeterStats) float64 { return float64(s.Retries) },
	},
	{
		"transparent_total", "Attempts that replaced one which no server had seen.",
		prometheus.CounterValue, func(s *retry.MeterStats) float64 { return float64(s.Transparent) },
	},
	{
		"withheld_total", "Calls that failed with attempts left, because the retry budget was used up.",
		prometheus.CounterValue, func(s *retry.MeterStats) float64 { return float64(s.Withheld) },
	},
}

var budgetReadings = []reading[retry.BudgetStats]{
	{
		"budget_tokens", "Estimate of the tokens that are left in the retry budget.",
		prometheus.GaugeValue, func(s *retry.BudgetStats) float64 { return s.Tokens },
	},
	{
		"budget_max_tokens", "The most tokens of the retry budget. gRPC retries while more than half are left.",
		prometheus.GaugeValue, func(s *retry.BudgetStats) float64 { return s.Max },
	},
}

// A retrySeries holds the metrics of one meter of retries.
type retrySeries struct {
	meter    *retry.Meter
	methods  *prometheus.Desc
	readings []*prometheus.Desc // in the order of retryReadings
	budgets  []*prometheus.Desc // in the order of budgetReadings
}

func newRetrySeries(m *retry.Meter) *retrySeries {
	name := prometheus.Labels{"meter": m.Name()}
	desc := func(series, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "retry", series), help, labels, name)
	}
	s := &retrySeries{meter: m, methods: desc("methods", "Pairs of a target and a method that were called.")}
	for _, r := range retryReadings {
		s.readings = append(s.readings, desc(r.name, r.help, "target", "method"))
	}
	for _, r := range budgetReadings {
		s.budgets = append(s.budgets, desc(r.name, r.help, "target"))
	}
	return s
}

func (s *retrySeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.methods
	for _, d := range s.readings {
		ch <- d
	}
	for _, d := range s.budgets {
		ch <- d
	}
}

func (s *retrySeries) collect(ch chan<- prometheus.Metric) {
	now, budgets := s.meter.Stats(), s.meter.Budgets()
	ch <- prometheus.MustNewConstMetric(s.methods, prometheus.GaugeValue, float64(len(now)))
	for i := range now {
		for j, r := range retryReadings {
			ch <- prometheus.MustNewConstMetric(s.readings[j], r.kind, r.value(&now[i]), now[i].Target, now[i].Method)
		}
	}
	for i := range budgets {
		for j, r := range budgetReadings {
			ch <- prometheus.MustNewConstMetric(s.budgets[j], r.kind, r.value(&budgets[i]), budgets[i].Target)
		}
	}
}
