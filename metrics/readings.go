package metrics

import "github.com/prometheus/client_golang/prometheus"

const namespace = "weir"

// A reading is one number of the Stats of a source.
type reading[Stats any] struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*Stats) float64
}

// A describer makes the descriptors of one source. The name of the source is part of each, so
// that a registry notices two sources of one name.
type describer struct {
	subsystem string
	source    prometheus.Labels
}

func (d describer) desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, d.subsystem, name), help, labels, d.source)
}

// A table shows readings, with the same labels for each.
type table[Stats any] struct {
	readings []reading[Stats]
	descs    []*prometheus.Desc // in the order of readings
}

func newTable[Stats any](d describer, readings []reading[Stats], labels ...string) table[Stats] {
	t := table[Stats]{readings: readings}
	for _, r := range readings {
		t.descs = append(t.descs, d.desc(r.name, r.help, labels...))
	}
	return t
}

func (t table[Stats]) describe(ch chan<- *prometheus.Desc) {
	for _, d := range t.descs {
		ch <- d
	}
}

func (t table[Stats]) collect(ch chan<- prometheus.Metric, s *Stats, labels ...string) {
	for i, r := range t.readings {
		ch <- prometheus.MustNewConstMetric(t.descs[i], r.kind, r.value(s), labels...)
	}
}
