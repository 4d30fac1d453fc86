package metrics

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

// A Source has numbers that a [Collector] shows. It is an [*admit.Gate], a
// [*breaker.Breaker], a [*throttle.Throttle], a [*retry.Meter], a [*streamcredit.Meter], a
// [*pressure.Monitor] or a [*broker.Meter].
type Source interface {
	// Name returns the value of the label that the metrics of the source have.
	Name() string
}

// Sources returns sources of one type for [NewCollector].
//
//	collector, err := metrics.NewCollector(metrics.Sources(gates.All()...)...)
func Sources[S Source](all ...S) []Source {
	sources := make([]Source, len(all))
	for i, s := range all {
		sources[i] = s
	}
	return sources
}

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
// The error names every mistake in the sources. There must be at least one. None may be
// nil, zero or of another type. No two may share a kind and a name, and each name must be
// valid UTF-8. After such an error no gate was changed. NewCollector also returns the
// errors of Update. Collectors can share a registry. The registry refuses a second source
// of one kind and name.
func NewCollector(sources ...Source) (*Collector, error) {
	by, err := byKind(sources)
	if err != nil {
		return nil, err
	}
	c := &Collector{}
	var errs []error
	for _, g := range by.gates {
		s := newGateSeries(g)
		if err := g.Update(admit.WithHooks(s.hooks())); err != nil {
			errs = append(errs, fmt.Errorf("metrics: gate %q: %w", g.Name(), err))
		}
		c.all = append(c.all, s)
	}
	for _, b := range by.breakers {
		c.all = append(c.all, newBreakerSeries(b))
	}
	for _, t := range by.throttles {
		c.all = append(c.all, newThrottleSeries(t))
	}
	for _, m := range by.retries {
		c.all = append(c.all, newRetrySeries(m))
	}
	for _, m := range by.meters {
		c.all = append(c.all, newMeterSeries(m))
	}
	for _, m := range by.monitors {
		c.all = append(c.all, newMonitorSeries(m))
	}
	for _, m := range by.brokers {
		c.all = append(c.all, newBrokerSeries(m))
	}
	if err := errors.Join(errs...); err != nil {
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

// kinds holds sources by their kind.
type kinds struct {
	gates     []*admit.Gate
	breakers  []*breaker.Breaker
	throttles []*throttle.Throttle
	retries   []*retry.Meter
	meters    []*streamcredit.Meter
	monitors  []*pressure.Monitor
	brokers   []*broker.Meter
}

func byKind(sources []Source) (by kinds, err error) {
	var errs []error
	if len(sources) == 0 {
		errs = append(errs, errors.New("metrics: sources: got none, want at least one"))
	}
	for i, s := range sources {
		switch s := s.(type) {
		case *admit.Gate:
			by.gates = append(by.gates, s)
		case *breaker.Breaker:
			by.breakers = append(by.breakers, s)
		case *throttle.Throttle:
			by.throttles = append(by.throttles, s)
		case *retry.Meter:
			by.retries = append(by.retries, s)
		case *streamcredit.Meter:
			by.meters = append(by.meters, s)
		case *pressure.Monitor:
			by.monitors = append(by.monitors, s)
		case *broker.Meter:
			by.brokers = append(by.brokers, s)
		default:
			errs = append(errs, fmt.Errorf(
				"metrics: source %d of %d: got %T, want a gate, "+
					"a breaker, a throttle, a meter of retries, streams or a broker, or a monitor",
				i+1, len(sources), s))
		}
	}
	errs = append(errs,
		validate(subject{"gate", "one from admit.New", "a zero Gate", "admit.WithName"}, by.gates),
		validate(subject{"breaker", "one from breaker.New", "a zero Breaker", "breaker.Config.Name"}, by.breakers),
		validate(subject{"throttle", "one from throttle.New", "a zero Throttle", "throttle.Config.Name"}, by.throttles),
		validate(subject{"meter of retries", "a named one from retry.NewMeter", "one without a name", "retry.NewMeter"}, by.retries),
		validate(subject{"meter", "a named one from streamcredit.NewMeter", "one without a name", "streamcredit.NewMeter"}, by.meters),
		validate(subject{"monitor", "one from pressure.New", "a zero Monitor", "pressure.WithName"}, by.monitors),
		validate(subject{"broker meter", "a named one from broker.NewMeter", "one without a name", "broker.NewMeter"}, by.brokers))
	return by, errors.Join(errs...)
}

// A subject is how errors speak of a kind of source.
type subject struct{ noun, want, nameless, option string }

// validate checks the sources of one kind. Their names become label values.
func validate[T interface {
	comparable
	Name() string
}](what subject, watched []T) error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("metrics: "+what.noun+format, args...))
	}
	var none T
	uses := make(map[string]int, len(watched))
	for i, w := range watched {
		if w == none {
			wrong(" %d of %d: got nil, want %s", i+1, len(watched), what.want)
			continue
		}
		name := w.Name()
		uses[name]++
		switch {
		case name == "":
			wrong(" %d of %d: got %s, want %s", i+1, len(watched), what.nameless, what.want)
		case uses[name] == 2:
			wrong(" name: got %q more than once, want one for each %s (%s)", name, what.noun, what.option)
		case uses[name] == 1 && !utf8.ValidString(name):
			wrong(" name: got %q, want valid UTF-8", name)
		}
	}
	return errors.Join(errs...)
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
