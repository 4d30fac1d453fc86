package metrics

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/check"
)

// A Collector shows sources to Prometheus. Register it with a prometheus.Registerer. It is
// safe for concurrent use. Use [NewCollector]; the zero Collector shows nothing.
type Collector struct{ all []series }

// A series is the set of metrics of one source. The name of the source is part of the
// descriptors, so that a registry notices two sources of one kind and name.
type series interface {
	describe(ch chan<- *prometheus.Desc)
	collect(ch chan<- prometheus.Metric)
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a collector for sources. They may be in use already. It adds hooks to
// each gate with [admit.Gate.Update], and does not change the other sources. Hooks cannot be
// removed, so make one collector for a gate and keep it, as you would a metric.
//
// The error wraps [ErrConfig] and names every mistake in the sources. There must be at least
// one. None may be nil, zero or of another type. No two may share a kind and a name, and each
// name must be valid UTF-8. After such an error no gate was changed. NewCollector also returns
// the errors of Update. Collectors can share a registry. The registry refuses a second source of
// one kind and name.
func NewCollector(sources ...Source) (*Collector, error) {
	by, err := byKind(sources)
	if err != nil {
		return nil, err
	}
	var bad check.Errors
	c := &Collector{}
	for _, g := range by.Gates {
		s := newGateSeries(g)
		bad.From(fmt.Sprintf("gate %q", g.Name()), g.Update(admit.WithHooks(s.hooks())), admit.ErrConfig)
		c.all = append(c.all, s)
	}
	for _, b := range by.Breakers {
		c.all = append(c.all, newBreakerSeries(b))
	}
	for _, t := range by.Throttles {
		c.all = append(c.all, newThrottleSeries(t))
	}
	for _, m := range by.Retries {
		c.all = append(c.all, newRetrySeries(m))
	}
	for _, m := range by.Streams {
		c.all = append(c.all, newMeterSeries(m))
	}
	for _, m := range by.Monitors {
		c.all = append(c.all, newMonitorSeries(m))
	}
	for _, m := range by.Brokers {
		c.all = append(c.all, newBrokerSeries(m))
	}
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return c, nil
}

// UseExemplars makes weir_wait_seconds have exemplars, which lead from a long wait to its trace.
// It calls f with the context of each call that waited, and f returns the labels of the exemplar,
// or nil for a call without a trace. The labels must have at most 128 characters together. f must
// be quick and safe for concurrent use. A nil f ends the exemplars. Without UseExemplars there
// are none. Prometheus reads exemplars only in the formats OpenMetrics and protobuf.
//
//	collector.UseExemplars(func(ctx context.Context) prometheus.Labels {
//		span := trace.SpanContextFromContext(ctx)
//		if !span.IsSampled() {
//			return nil
//		}
//		return prometheus.Labels{"trace_id": span.TraceID().String()}
//	})
func (c *Collector) UseExemplars(f func(context.Context) prometheus.Labels) {
	to := &f
	if f == nil {
		to = nil
	}
	for _, s := range c.all {
		if g, ok := s.(*gateSeries); ok {
			g.exemplar.Store(to)
		}
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.all {
		s.describe(ch)
	}
}

// Collect implements prometheus.Collector. It reads the Stats of each source once, and takes
// the locks that Stats takes. These are the locks of a gate, of each target of a throttle, of each
// open stream of a meter, and of a monitor.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.all {
		s.collect(ch)
	}
}
