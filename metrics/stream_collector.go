package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/streamcredit"
)

// A StreamCollector exports meters of streams to Prometheus. Register it with a
// prometheus.Registerer. It is safe for concurrent use. Use [NewStreamCollector]. The zero
// StreamCollector exports nothing.
type StreamCollector struct{ meters []*streamSeries }

var _ prometheus.Collector = (*StreamCollector)(nil)

// NewStreamCollector returns a collector for meters. It does not change them,
// and streams may be in use already.
//
// The error names everything that is wrong with the meters, such as none at all, a nil
// meter, two of one name, or a name that cannot be a label. Collectors of different meters
// can share a registry, which refuses a second meter of the same name.
func NewStreamCollector(meters ...*streamcredit.Meter) (*StreamCollector, error) {
	if err := validate(aMeter, meters); err != nil {
		return nil, err
	}
	c := &StreamCollector{}
	for _, m := range meters {
		c.meters = append(c.meters, newStreamSeries(m))
	}
	return c, nil
}

var aMeter = subject{"meter", "a named one from streamcredit.NewMeter", "one without a name", "streamcredit.NewMeter"}

// Describe implements prometheus.Collector.
func (c *StreamCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.meters {
		s.describe(ch)
	}
}

// Collect implements prometheus.Collector. It takes the locks of each open stream for a
// moment, one after the other. Meanwhile no stream of the meter can open or end.
func (c *StreamCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.meters {
		s.collect(ch)
	}
}
