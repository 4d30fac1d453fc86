package metrics

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
)

// A Collector exports gates to Prometheus. Register it with a prometheus.Registerer. It is
// safe for concurrent use. Use [NewCollector]. The zero Collector exports nothing.
type Collector struct{ gates []*series }

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a collector for gates, and adds the hooks that it needs
// to each with [admit.Gate.Update]. It does not block on calls, and gates may be in use
// already. Hooks cannot be removed again, so create one collector for a gate and keep it.
//
// The error names everything that is wrong with the gates, such as none at all, a nil gate,
// two of one name, or a name that cannot be a label. No gate is changed in that case. It
// also returns the errors of Update. Collectors of different gates can share a registry,
// which refuses a second gate of the same name.
func NewCollector(gates ...*admit.Gate) (*Collector, error) {
	if err := validate(aGate, gates); err != nil {
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

// A subject is the kind of thing that a collector exports, in errors of validate.
type subject struct{ noun, want, nameless, option string }

var aGate = subject{"gate", "one from admit.New", "a zero Gate", "admit.WithName"}

// validate checks the things that a collector exports. Their names become label values.
func validate[T interface {
	comparable
	Name() string
}](what subject, watched []T) error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("metrics: "+what.noun+format, args...))
	}
	if len(watched) == 0 {
		wrong("s: got none, want at least one")
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
