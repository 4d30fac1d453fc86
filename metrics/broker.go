package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/broker"
)

var brokerReadings = []reading[broker.Stats]{
	{
		"wanted", "Messages that were asked for and are not settled.",
		prometheus.GaugeValue, func(s *broker.Stats) float64 { return float64(s.Wanted) },
	},
	{
		"held", "Messages in this process that are not settled.",
		prometheus.GaugeValue, func(s *broker.Stats) float64 { return float64(s.Held) },
	},
	{
		"running", "Handlers that run.",
		prometheus.GaugeValue, func(s *broker.Stats) float64 { return float64(s.Running) },
	},
	{
		"paused", "Consumers that pause.",
		prometheus.GaugeValue, func(s *broker.Stats) float64 { return float64(s.Paused) },
	},
	{
		"paused_seconds_total", "Time spent in pauses, summed over consumers.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return s.PausedSeconds },
	},
	{
		"fetched_total", "Messages delivered to this process.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Fetched) },
	},
	{
		"redelivered_total", "Messages that the broker had delivered before, as far as it counts.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Redelivered) },
	},
	{
		"extended_total", "Times that a source asked for more time for a message.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Extended) },
	},
	{
		"failed_total", "Failed attempts of handlers.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Failed) },
	},
	{
		"panics_total", "Panics of handlers, all survived.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Panics) },
	},
	{
		"refused_total", "Attempts that ended because something refused work.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Refused) },
	},
	{
		"errors_total", "Errors of fetching, extending and settling.",
		prometheus.CounterValue, func(s *broker.Stats) float64 { return float64(s.Errors) },
	},
}

// A brokerSeries holds the metrics of one meter of messages.
type brokerSeries struct {
	meter    *broker.Meter
	settled  *prometheus.Desc
	pauses   *prometheus.Desc
	readings table[broker.Stats]
}

func newBrokerSeries(m *broker.Meter) *brokerSeries {
	of := describer{"broker", prometheus.Labels{"meter": m.Name()}}
	return &brokerSeries{
		meter:    m,
		readings: newTable(of, brokerReadings),
		settled:  of.desc("settled_total", "Messages by their end: acked, requeued, dead_lettered or lost.", "end"),
		pauses:   of.desc("pauses_total", "Pauses of consumption by the origin of the refusal: dependency or gate.", "cause"),
	}
}

func (s *brokerSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.settled
	ch <- s.pauses
	s.readings.describe(ch)
}

func (s *brokerSeries) collect(ch chan<- prometheus.Metric) {
	now := s.meter.Stats()
	for end, n := range now.Settled {
		ch <- prometheus.MustNewConstMetric(s.settled, prometheus.CounterValue, float64(n), broker.Settlement(end).String())
	}
	for cause, n := range now.Pauses {
		ch <- prometheus.MustNewConstMetric(s.pauses, prometheus.CounterValue, float64(n), broker.PauseCause(cause).String())
	}
	s.readings.collect(ch, &now)
}
