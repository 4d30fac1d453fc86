package otel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/metrics"
)

// waits is the metric that hooks feed, since a histogram cannot be observed afterwards.
const waits = "weir_wait_seconds"

// waitBounds are the bounds of the buckets in package metrics.
var waitBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

// ErrConfig is wrapped by the errors of [Register] and [Trace] about their arguments.
var ErrConfig = errors.New("otel: invalid configuration")

// Register makes an instrument of the meter for each metric of the sources. They are the sources of
// [metrics.NewCollector], with the same conditions. The error wraps [ErrConfig] and names every mistake. Register adds
// hooks to each gate, which cannot be removed, so call it once for a source. The instruments read the Stats of the
// sources when metrics are collected.
func Register(meter metric.Meter, sources ...metrics.Source) error {
	var bad check.Errors
	bad.That(meter != nil, "meter: got nil, want one of a MeterProvider")
	if err := bad.Err(ErrConfig); err != nil {
		return err
	}
	collector, err := metrics.NewCollector(sources...)
	if err != nil {
		bad.From("sources", err, metrics.ErrConfig)
		return bad.Err(ErrConfig)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(collector); err != nil {
		return fmt.Errorf("otel: %w", err)
	}
	b := bridge{registry: registry, instruments: map[string]metric.Float64Observable{}}
	if err := b.use(meter, collector); err != nil {
		return err
	}
	if err := measureWaits(meter, sources); err != nil {
		return err
	}
	_, err = meter.RegisterCallback(b.observe, b.observables...)
	return err
}

// A bridge passes the metrics of a registry on to instruments.
type bridge struct {
	registry    *prometheus.Registry
	instruments map[string]metric.Float64Observable // by the name of the metric
	observables []metric.Observable
}

// use makes an instrument for each metric of the collector.
func (b *bridge) use(meter metric.Meter, collector prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		collector.Describe(descs)
	}()
	taken := map[string]string{} // metrics by the name of their instrument
	var errs []error
	for d := range descs { // to the end, or Describe would block
		n, err := nameOf(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, made := b.instruments[n.metric]; made || n.metric == waits {
			continue
		}
		i, err := n.make(meter)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if other, taken := taken[n.instrument]; taken {
			errs = append(errs, fmt.Errorf("otel: got the name %s for %s and for %s, want a name for each", n.instrument, other, n.metric))
			continue
		}
		taken[n.instrument] = n.metric
		b.instruments[n.metric] = i
		b.observables = append(b.observables, i)
	}
	return errors.Join(errs...)
}

func (n name) make(meter metric.Meter) (metric.Float64Observable, error) {
	if n.counter {
		return meter.Float64ObservableCounter(n.instrument, metric.WithDescription(n.description), metric.WithUnit(n.unit))
	}
	return meter.Float64ObservableGauge(n.instrument, metric.WithDescription(n.description), metric.WithUnit(n.unit))
}

// observe is called when metrics are collected.
func (b *bridge) observe(_ context.Context, to metric.Observer) error {
	families, err := b.registry.Gather()
	for _, f := range families { // Gather returns the valid ones with its error
		i, ok := b.instruments[f.GetName()]
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() // one of them is nil, and 0
			to.ObserveFloat64(i, value, metric.WithAttributeSet(attributes(m.GetLabel())))
		}
	}
	return err
}

// attributes returns the labels of a series as attributes: weir.gate, weir.class and so on.
func attributes(labels []*dto.LabelPair) attribute.Set {
	set := make([]attribute.KeyValue, len(labels))
	for i, l := range labels {
		set[i] = attribute.String("weir."+l.GetName(), l.GetValue())
	}
	return attribute.NewSet(set...)
}

// measureWaits adds hooks to the gates that record each wait, with the context of its call.
func measureWaits(meter metric.Meter, sources []metrics.Source) error {
	var histogram metric.Float64Histogram
	for _, s := range sources {
		g, ok := s.(*admit.Gate)
		if !ok {
			continue
		}
		if histogram == nil {
			var err error
			if histogram, err = meter.Float64Histogram("weir.gate.wait", metric.WithUnit("s"),
				metric.WithDescription("How long calls waited that had to, by what came of it."),
				metric.WithExplicitBucketBoundaries(waitBounds...)); err != nil {
				return err
			}
		}
		if err := g.Update(admit.WithHooks(waitHooks(histogram, g.Name()))); err != nil {
			return fmt.Errorf("otel: gate %q: %w", g.Name(), err)
		}
	}
	return nil
}

func waitHooks(h metric.Float64Histogram, gate string) admit.Hooks {
	with := func(result string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("weir.gate", gate), attribute.String("weir.result", result)))
	}
	admitted, refused, left := with("admitted"), with("refused"), with("left")
	return admit.Hooks{
		Waited: func(ctx context.Context, _ admit.Call, wait time.Duration) { h.Record(ctx, wait.Seconds(), admitted) },
		Refused: func(ctx context.Context, _ admit.Call, _ admit.Reason, wait time.Duration) {
			if wait > 0 { // not refused on arrival
				h.Record(ctx, wait.Seconds(), refused)
			}
		},
		Left: func(ctx context.Context, _ admit.Call, wait time.Duration, _ error) {
			if wait > 0 { // not over on arrival
				h.Record(ctx, wait.Seconds(), left)
			}
		},
	}
}
