package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/pressure"
)

var (
	monitorReadings = []reading[pressure.Stats]{
		{
			"level", "Level of pressure: 0 calm, 1 elevated, 2 high, 3 extreme.",
			prometheus.GaugeValue, func(s *pressure.Stats) float64 { return float64(s.Level) },
		},
		{
			"level_changes_total", "Changes of the level.",
			prometheus.CounterValue, func(s *pressure.Stats) float64 { return float64(s.Changes) },
		},
		{
			"panics_total", "Panics of hooks, all survived.",
			prometheus.CounterValue, func(s *pressure.Stats) float64 { return float64(s.Panics) },
		},
	}
	signalReadings = []reading[pressure.SignalStats]{
		{
			"ratio", "How much of the resource is used up, from 0 to 1.",
			prometheus.GaugeValue, func(s *pressure.SignalStats) float64 { return s.Value },
		},
		{
			"signal_failing", "1 while the last read of the signal failed.",
			prometheus.GaugeValue, func(s *pressure.SignalStats) float64 { return oneIf(s.Err != nil) },
		},
		{
			"signal_failures_total", "Failed reads of the signal.",
			prometheus.CounterValue, func(s *pressure.SignalStats) float64 { return float64(s.Failures) },
		},
	}
)

// A monitorSeries holds the metrics of one monitor of pressure.
type monitorSeries struct {
	monitor  *pressure.Monitor
	readings table[pressure.Stats]
	signals  table[pressure.SignalStats]
}

func newMonitorSeries(m *pressure.Monitor) *monitorSeries {
	of := describer{"pressure", prometheus.Labels{"monitor": m.Name()}}
	return &monitorSeries{m, newTable(of, monitorReadings), newTable(of, signalReadings, "signal")}
}

func (s *monitorSeries) describe(ch chan<- *prometheus.Desc) {
	s.readings.describe(ch)
	s.signals.describe(ch)
}

func (s *monitorSeries) collect(ch chan<- prometheus.Metric) {
	now := s.monitor.Stats()
	s.readings.collect(ch, &now)
	for i := range now.Signals {
		s.signals.collect(ch, &now.Signals[i], now.Signals[i].Name)
	}
}
