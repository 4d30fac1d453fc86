package pressure

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

const (
	defaultEvery   = 100 * time.Millisecond
	shortestEvery  = 10 * time.Millisecond
	longestEvery   = time.Minute
	longestName    = 64
	shortestMemory = time.Second // for which the last value of a signal that fails counts
)

// An Option configures a [Monitor], in [New] or in [Monitor.Update].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// WithName names the monitor in metrics. The default is "default". The name cannot be changed
// later.
func WithName(name string) Option { return option(func(c *config) { c.name = name }) }

// WithMarks sets where levels begin and end; see [Marks] for the defaults.
func WithMarks(m Marks) Option { return option(func(c *config) { c.marks = m }) }

// WithEvery sets how often the signals are read: from 10 ms to a minute. Zero means 100 ms.
func WithEvery(d time.Duration) Option { return option(func(c *config) { c.every = d }) }

// WithSignals sets the signals, instead of those that there were. The default is [Memory],
// [GC] and [Processors] with their defaults. With no signal the level is always Calm.
func WithSignals(signals ...Signal) Option {
	signals = slices.Clone(signals)
	return option(func(c *config) { c.probes = c.newProbes(signals) })
}

// WithHooks adds hooks. Each use adds a set; all of them are called.
func WithHooks(h Hooks) Option {
	return option(func(c *config) { c.hooks = append(slices.Clip(c.hooks), h) })
}

// Hooks are called when something has changed. Every field may be nil. The monitor's
// goroutine calls them one at a time, so they should return soon. A panic of a hook is
// counted in Stats.Panics and does nothing else.
//
//	pressure.Hooks{Changed: func(c pressure.Change) {
//		slog.Warn("pressure", "level", c.To, "was", c.From, "signal", c.Signal, "value", c.Value)
//	}}
type Hooks struct {
	// Changed is called when the level has changed.
	Changed func(Change)
	// Failed is called when a signal begins to fail, and with a nil error when it
	// answers again.
	Failed func(signal string, err error)
}

// A Change is a change of the level.
type Change struct {
	// From and To are the levels before and after.
	From, To Level
	// Signal is the name of the worst signal, and Value what it says.
	Signal string
	Value  float64
}

type config struct {
	name   string
	every  time.Duration
	marks  Marks
	probes []*probe
	hooks  []Hooks
	wrong  []error // of options, found when they were applied
}

func (c *config) take(opts []Option) {
	for i, o := range opts {
		if o == nil {
			c.wrong = append(c.wrong, fmt.Errorf("option %d: got nil, want an option", i))
			continue
		}
		o.apply(c)
	}
	if c.every == 0 {
		c.every = defaultEvery
	}
}

// newProbes asks signals for their names. Each is asked once.
func (c *config) newProbes(signals []Signal) (probes []*probe) {
	names := map[string]bool{}
	for i, s := range signals {
		name, err := nameOf(s)
		switch {
		case err != nil:
		case name == "" || len(name) > longestName || !utf8.ValidString(name):
			err = fmt.Errorf("got the name %q, want 1 to %d bytes of UTF-8", name, longestName)
		case names[name]:
			err = fmt.Errorf("got the name %q of another signal, want one of its own", name)
		default:
			if s, ok := s.(interface{ validate() error }); ok {
				err = s.validate()
			}
		}
		if err != nil {
			c.wrong = append(c.wrong, fmt.Errorf("signal %d: %w", i, err))
			continue
		}
		names[name] = true
		probes = append(probes, newProbe(name, s))
	}
	return probes
}

func nameOf(s Signal) (name string, err error) {
	if s == nil {
		return "", errors.New("got nil, want a signal")
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("got a panic from Name (%v), want a name", v)
		}
	}()
	return s.Name(), nil
}

// validate returns everything that is wrong.
func (c *config) validate() error {
	errs := slices.Clone(c.wrong)
	if c.name == "" {
		errs = append(errs, errors.New("name: got an empty one, want one for metrics"))
	}
	if c.every < shortestEvery || c.every > longestEvery {
		errs = append(errs, fmt.Errorf("every: got %v, want 0 (%v) or %v to %v", c.every, defaultEvery, shortestEvery, longestEvery))
	}
	errs = append(errs, c.marks.validate()...)
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
}

// memory is for how long the last value of a signal that fails counts.
func (c *config) memory() time.Duration { return max(shortestMemory, 5*c.every) }
