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
	readings table[retry.MeterStats]
	budgets  table[retry.BudgetStats]
}

func newRetrySeries(m *retry.Meter) *retrySeries {
	of := describer{"retry", prometheus.Labels{"meter": m.Name()}}
	return &retrySeries{
		meter:    m,
		methods:  of.desc("methods", "Pairs of a target and a method that were called."),
		readings: newTable(of, retryReadings, "target", "method"),
		budgets:  newTable(of, budgetReadings, "target"),
	}
}

func (s *retrySeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.methods
	s.readings.describe(ch)
	s.budgets.describe(ch)
}

func (s *retrySeries) collect(ch chan<- prometheus.Metric) {
	now, budgets := s.meter.Stats(), s.meter.Budgets()
	ch <- prometheus.MustNewConstMetric(s.methods, prometheus.GaugeValue, float64(len(now)))
	for i := range now {
		s.readings.collect(ch, &now[i], now[i].Target, now[i].Method)
	}
	for i := range budgets {
		s.budgets.collect(ch, &budgets[i], budgets[i].Target)
	}
}
