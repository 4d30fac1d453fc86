package pressure

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/weir-go/weir/internal/check"
)

const (
	defaultEvery   = 100 * time.Millisecond
	shortestEvery  = 10 * time.Millisecond
	longestEvery   = time.Minute
	longestName    = 64
	shortestMemory = time.Second // see config.memory
)

// An Option configures a [Monitor], in [New] or in [Monitor.Update].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// WithName names the monitor in metrics. The default is "default". The name becomes a label
// value, and [Monitor.Update] cannot change it.
func WithName(name string) Option { return option(func(c *config) { c.name = name }) }

// WithMarks sets the values at which levels begin and end. [Marks] has the defaults.
func WithMarks(m Marks) Option { return option(func(c *config) { c.marks = m }) }

// WithEvery sets the interval between samples, from 10 ms to a minute. Zero means 100 ms. The
// signal of [Memory] is sampled more often while the memory rises fast.
func WithEvery(d time.Duration) Option { return option(func(c *config) { c.every = d }) }

// WithSignals replaces the signals. The default is [Memory], [GC] and [Processors]. Without
// any signal the level is always Calm. In [Monitor.Update] a signal that the monitor has
// already keeps its last value, and is not read again while a read is under way.
func WithSignals(signals ...Signal) Option {
	signals = slices.Clone(signals)
	return option(func(c *config) { c.probes = c.newProbes(signals) })
}

// WithHooks adds a set of hooks. The monitor calls all sets.
func WithHooks(h Hooks) Option {
	return option(func(c *config) { c.hooks = append(slices.Clip(c.hooks), h) })
}

// Hooks are functions that a monitor calls. Any of them may be nil. They run one at a time in
// the goroutine of the monitor, and delay the next sample. A panic in a hook is counted in
// Stats.Panics.
//
//	pressure.Hooks{Changed: func(c pressure.Change) {
//		slog.Warn("pressure", "level", c.To, "was", c.From, "signal", c.Signal, "value", c.Value)
//	}}
type Hooks struct {
	// Changed is called after a change of the level.
	Changed func(Change)
	// Failed is called when a signal begins to fail, and with a nil error when it returns
	// a value again.
	Failed func(signal string, err error)
}

// A Change is a change of the level.
type Change struct {
	// From and To are the levels before and after.
	From, To Level
	// Signal is the name of the signal with the highest value, and Value that value. It
	// includes the rise that [Memory] expects.
	Signal string
	Value  float64
}

type config struct {
	name   string
	every  time.Duration
	marks  Marks
	probes []*probe
	hooks  []Hooks
	bad    check.Errors // found while options were applied
}

// apply applies options in order.
func (c *config) apply(opts []Option) {
	for i, o := range opts {
		if o == nil {
			c.bad.That(false, "option %d: got nil, want an option", i)
			continue
		}
		o.apply(c)
	}
	c.every = cmp.Or(c.every, defaultEvery)
}

// newProbes returns a probe for each valid signal, the present one if there is one. It calls
// Name of each signal once.
func (c *config) newProbes(signals []Signal) (probes []*probe) {
	names := map[string]bool{}
	for i, s := range signals {
		name, err := nameOf(s)
		switch {
		case err != nil:
		case name == "" || len(name) > longestName || !utf8.ValidString(name):
			err = fmt.Errorf("Name: got %q, want 1 to %d bytes of UTF-8", name, longestName)
		case names[name]:
			err = fmt.Errorf("Name: got %q of another signal, want one of its own", name)
		default:
			if s, ok := s.(interface{ validate() error }); ok {
				err = s.validate()
			}
		}
		if err != nil {
			c.bad.That(false, "signal %d: %w", i, err)
			continue
		}
		names[name] = true
		probes = append(probes, c.probe(name, s))
	}
	return probes
}

// probe returns the present probe of a signal, or a new one.
func (c *config) probe(name string, s Signal) *probe {
	for _, p := range c.probes {
		if p.name == name && reflect.ValueOf(s).Comparable() && p.signal == s {
			return p
		}
	}
	return newProbe(name, s)
}

func nameOf(s Signal) (name string, err error) {
	if s == nil {
		return "", errors.New("got nil, want a signal")
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("Name: got a panic (%v), want a name", v)
		}
	}()
	return s.Name(), nil
}

// validate returns every error of the configuration.
func (c *config) validate() check.Errors {
	bad := slices.Clone(c.bad)
	bad.That(c.name != "", "name: got an empty one, want one for metrics")
	bad.That(c.every >= shortestEvery && c.every <= longestEvery,
		"every: got %v, want 0 (%v) or %v to %v", c.every, defaultEvery, shortestEvery, longestEvery)
	c.marks.validate(&bad)
	return bad
}

// memory returns how long the last value of a failing signal counts.
func (c *config) memory() time.Duration { return max(shortestMemory, 5*c.every) }

// next returns the interval until the next read of a signal. The monitor's lock is held.
func (c *config) next() time.Duration {
	next := c.every
	for _, p := range c.probes {
		next = min(next, p.due(c.every))
	}
	return next
}
