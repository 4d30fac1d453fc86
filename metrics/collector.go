package metrics

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
)

// A Collector shows gates to Prometheus; register it with a
// prometheus.Registerer. It is safe for concurrent use. Use [NewCollector]; the
// zero Collector shows nothing.
type Collector struct{ gates []*series }

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a collector for gates, and adds the hooks that it needs
// to each with [admit.Gate.Update]. It does not block on calls; gates may be in
// use already. Hooks cannot be taken out again: make one collector for a gate
// and keep it, as one would a metric.
//
// It returns an error that names everything wrong with the gates: none at all,
// a nil one, two of one name, a name that cannot be a label. Then it has not
// touched any of them. It also returns the errors of Update. Collectors of
// different gates can share a registry, which refuses a second gate of a name.
func NewCollector(gates ...*admit.Gate) (*Collector, error) {
	if err := validate(gates); err != nil {
		return nil, err
	}
	c := &Collector{}
	var errs []error
	for _, g := range gates {
		s := newSeries(g)
		if err := g.Update(admit.WithHooks(s.hooks())); err != nil {
			errs = append(errs, fmt.Errorf("metrics: gate %q: %w", g.Name(), err))
		}
		c.gates = append(c.gates, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

func validate(gates []*admit.Gate) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("metrics: "+format, args...)) }
	if len(gates) == 0 {
		wrong("gates: got none, want at least one")
	}
	uses := make(map[string]int, len(gates))
	for i, g := range gates {
		if g == nil {
			wrong("gate %d of %d: got nil, want one from admit.New", i+1, len(gates))
			continue
		}
		name := g.Name()
		uses[name]++
		switch {
		case name == "": // only a zero Gate has no name
			wrong("gate %d of %d: got a zero Gate, want one from admit.New", i+1, len(gates))
		case uses[name] == 2:
			wrong("gate name: got %q more than once, want one for each gate (admit.WithName)", name)
		case uses[name] == 1 && !utf8.ValidString(name):
			wrong("gate name: got %q, want valid UTF-8", name)
		}
	}
	return errors.Join(errs...)
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.gates {
		s.describe(ch)
	}
}

// Collect implements prometheus.Collector. It takes each gate's lock for a
// moment.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.gates {
		s.collect(ch)
	}
}
