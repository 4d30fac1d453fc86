package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/pressure"
)

// A PressureCollector shows a monitor of package pressure to Prometheus; register it with
// a prometheus.Registerer. It is safe for concurrent use. Use [NewPressureCollector]; the
// zero PressureCollector shows nothing.
type PressureCollector struct {
	monitor                                           *pressure.Monitor
	ratio, level, changes, failing, failures, panics *prometheus.Desc
}

var _ prometheus.Collector = (*PressureCollector)(nil)

// NewPressureCollector returns a collector for a monitor. It does not change the monitor,
// which may run already. It returns an error if the monitor is nil. A registry refuses a
// second one.
func NewPressureCollector(m *pressure.Monitor) (*PressureCollector, error) {
	if m == nil {
		return nil, errors.New("metrics: monitor: got nil, want one from pressure.New")
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "pressure", name), help, labels, nil)
	}
	return &PressureCollector{
		monitor:  m,
		ratio:    desc("ratio", "How much of the resource is used up, from 0 to 1.", "signal"),
		level:    desc("level", "Level of pressure: 0 calm, 1 elevated, 2 high, 3 extreme."),
		changes:  desc("level_changes_total", "Changes of the level."),
		failing:  desc("signal_failing", "1 while the signal has no value and counts as 0.", "signal"),
		failures: desc("signal_failures_total", "Samples that the signal failed.", "signal"),
		panics:  desc("panics_total", "Panics of hooks, all survived."),
	}, nil
}

// Describe implements prometheus.Collector.
func (c *PressureCollector) Describe(ch chan<- *prometheus.Desc) {
	if c.monitor == nil {
		return
	}
	for _, d := range []*prometheus.Desc{c.ratio, c.level, c.changes, c.failing, c.failures, c.panics} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. No call waits for it.
func (c *PressureCollector) Collect(ch chan<- prometheus.Metric) {
	if c.monitor == nil {
		return
	}
	show := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	now := c.monitor.Stats()
	for _, s := range now.Signals {
		show(c.ratio, prometheus.GaugeValue, s.Value, s.Name)
		show(c.failing, prometheus.GaugeValue, oneIf(s.Err != nil), s.Name)
		show(c.failures, prometheus.CounterValue, float64(s.Failures), s.Name)
	}
	show(c.level, prometheus.GaugeValue, float64(now.Level))
	show(c.changes, prometheus.CounterValue, float64(now.Changes))
	show(c.panics, prometheus.CounterValue, float64(now.Panics))
}
