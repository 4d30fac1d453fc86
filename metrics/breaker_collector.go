package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors"
)

// A BreakerCollector exports the circuits of breakers to Prometheus. Register it with a
// prometheus.Registerer. It is safe for concurrent use. Use [NewBreakerCollector]. The zero
// BreakerCollector exports nothing.
type BreakerCollector struct{ breakers []*breakerSeries }

var _ prometheus.Collector = (*BreakerCollector)(nil)

// NewBreakerCollector returns a collector for breakers. It does not change them,
// and clients may be in use already.
//
// The error names everything that is wrong with the breakers, such as none at all, a nil or
// zero breaker, two of one name, or a name that cannot be a label. Collectors of different
// breakers can share a registry, which refuses a second breaker of the same name.
func NewBreakerCollector(breakers ...*interceptors.Breaker) (*BreakerCollector, error) {
	if err := validate(aBreaker, breakers); err != nil {
		return nil, err
	}
	c := &BreakerCollector{}
	for _, b := range breakers {
		c.breakers = append(c.breakers, newBreakerSeries(b))
	}
	return c, nil
}

var aBreaker = subject{"breaker", "one from interceptors.NewBreaker", "a zero Breaker", "interceptors.BreakerConfig.Name"}

// Describe implements prometheus.Collector.
func (c *BreakerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.breakers {
		s.describe(ch)
	}
}

// Collect implements prometheus.Collector. Only the first call of a method may wait for it.
func (c *BreakerCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.breakers {
		s.collect(ch)
	}
}
