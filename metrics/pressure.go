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
	readings []*prometheus.Desc // in the order of monitorReadings
	signals  []*prometheus.Desc // in the order of signalReadings
}

func newMonitorSeries(m *pressure.Monitor) *monitorSeries {
	name := prometheus.Labels{"monitor": m.Name()}
	desc := func(series, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "pressure", series), help, labels, name)
	}
	s := &monitorSeries{monitor: m}
	for _, r := range monitorReadings {
		s.readings = append(s.readings, desc(r.name, r.help))
	}
	for _, r := range signalReadings {
		s.signals = append(s.signals, desc(r.name, r.help, "signal"))
	}
	return s
}

func (s *monitorSeries) describe(ch chan<- *prometheus.Desc) {
	for _, d := range s.readings {
		ch <- d
	}
	for _, d := range s.signals {
		ch <- d
	}
}

func (s *monitorSeries) collect(ch chan<- prometheus.Metric) {
	now := s.monitor.Stats()
	for i, r := range monitorReadings {
		ch <- prometheus.MustNewConstMetric(s.readings[i], r.kind, r.value(&now))
	}
	for i := range now.Signals {
		signal := &now.Signals[i]
		for j, r := range signalReadings {
			ch <- prometheus.MustNewConstMetric(s.signals[j], r.kind, r.value(signal), signal.Name)
		}
	}
}
