package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/throttle"
)

// A ThrottleCollector shows throttles to Prometheus; register it with a
// prometheus.Registerer. It is safe for concurrent use. Use [NewThrottleCollector];
// the zero ThrottleCollector shows nothing.
type ThrottleCollector struct{ throttles []*throttleSeries }

var _ prometheus.Collector = (*ThrottleCollector)(nil)

// NewThrottleCollector returns a collector for throttles. It does not change them;
// clients may be in use already.
//
// It returns an error that names everything wrong with the throttles: none at all, a
// nil or zero one, two of one name, a name that cannot be a label. Collectors of
// different throttles can share a registry, which refuses a second throttle of a
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
