package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/throttle"
)

// A ThrottleCollector exports throttles to Prometheus. Register it with a
// prometheus.Registerer. It is safe for concurrent use. Use [NewThrottleCollector]. The zero
// ThrottleCollector exports nothing.
type ThrottleCollector struct{ throttles []*throttleSeries }

var _ prometheus.Collector = (*ThrottleCollector)(nil)

// NewThrottleCollector returns a collector for throttles. It does not change them,
// and clients may be in use already.
//
// The error names everything that is wrong with the throttles, such as none at all, a nil
// or zero throttle, two of one name, or a name that cannot be a label. Collectors of
// different throttles can share a registry, which refuses a second throttle of the same
// name.
func NewThrottleCollector(throttles ...*throttle.Throttle) (*ThrottleCollector, error) {
	if err := validate(aThrottle, throttles); err != nil {
		return nil, err
	}
	c := &ThrottleCollector{}
	for _, t := range throttles {
		c.throttles = append(c.throttles, newThrottleSeries(t))
	}
	return c, nil
}

var aThrottle = subject{"throttle", "one from throttle.New", "a zero Throttle", "throttle.Config.Name"}

// Describe implements prometheus.Collector.
func (c *ThrottleCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.throttles {
		s.describe(ch)
	}
}

// Collect implements prometheus.Collector. It takes the lock of each target for a
// moment, one after the other.
func (c *ThrottleCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.throttles {
		s.collect(ch)
	}
}
