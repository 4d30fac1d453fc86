package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/breaker"
)

// A BreakerCollector shows the circuits of breakers to Prometheus; register it with
// a prometheus.Registerer. It is safe for concurrent use. Use [NewBreakerCollector];
// the zero BreakerCollector shows nothing.
type BreakerCollector struct{ breakers []*breakerSeries }

var _ prometheus.Collector = (*BreakerCollector)(nil)

// NewBreakerCollector returns a collector for breakers. It does not change them;
// clients may be in use already.
//
// It returns an error that names everything wrong with the breakers: none at all, a
// nil or zero one, two of one name, a name that cannot be a label. Collectors of
// different breakers can share a registry, which refuses a second breaker of a name.
func NewBreakerCollector(breakers ...*breaker.Breaker) (*BreakerCollector, error) {
	if err := validate(aBreaker, breakers); err != nil {
		return nil, err
	}
	c := &BreakerCollector{}
	for _, b := range breakers {
		c.breakers = append(c.breakers, newBreakerSeries(b))
	}
	return c, nil
}

var aBreaker = subject{"breaker", "one from breaker.New", "a zero Breaker", "breaker.Config.Name"}

// Describe implements prometheus.Collector.
func (c *BreakerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.breakers {
		s.describe(ch)
	}
}

// Collect implements prometheus.Collector. No call waits for it, unless it is the
// first one of its method.
func (c *BreakerCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.breakers {
		s.collect(ch)
	}
}
