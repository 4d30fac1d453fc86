package interceptors

import (
	"errors"
	"fmt"
	"slices"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by every error of [Server] and [Client]. Such an error names every
// wrong value, with the values that are allowed.
var ErrConfig = errors.New("interceptors: invalid configuration")

// checkOptions returns the mistakes of the options. A class must belong to at least one of
// the gates. Gates that are not made are left out.
func (c *config) checkOptions(gates ...*admit.Gate) []error {
	errs := slices.Clone(c.wrong)
	for _, err := range checkMatcher(c.matcher) {
		errs = append(errs, fmt.Errorf("WithMatcher: %w", err))
	}
	errs = append(errs, c.streams.check()...)
	for _, rule := range c.classes {
		for _, err := range checkMatcher(rule.matcher) {
			errs = append(errs, fmt.Errorf("WithClassFor(%v): %w", rule.class, err))
		}
		if known := classNames(gates); known != nil && !slices.Contains(known, rule.class) {
			errs = append(errs, fmt.Errorf(
				"WithClassFor(%v): got a class that no gate has, want one of %v, or admit.WithClassConfig for it", rule.class, known))
		}
	}
	return errs
}

// classNames returns the classes of the gates, nil if no gate is made.
func classNames(gates []*admit.Gate) (known []admit.Class) {
	for _, g := range gates {
		if !made(g) {
			continue
		}
		for c, name := range g.Stats().Classes {
			if name != "" && !slices.Contains(known, admit.Class(c)) {
				known = append(known, admit.Class(c))
			}
		}
	}
	return known
}

// made reports whether admit.New made the gate.
func made(g *admit.Gate) bool { return g != nil && g.Limit() > 0 }

// cannotWork returns the error of every call of an interceptor that has no gate or wrong
// options, and nil if the interceptor can work.
func (c *config) cannotWork(g *admit.Gate) error {
	if !made(g) {
		return refusal.ErrNoGate
	}
	if errs := c.checkOptions(g); len(errs) > 0 {
		return refusal.Misconfigured(errors.Join(errs...))
	}
	return nil
}

// checkGate adds the mistakes of a gate. A nil gate is no mistake.
func checkGate(bad *check.Errors, what string, g *admit.Gate, streams bool) {
	switch {
	case g == nil:
	case !made(g):
		bad.That(false, "%s: got a zero Gate, want one from admit.New", what)
	case streams && gateFuncs.Adapts(g):
		bad.That(false, "%s: got gate %q with a limit that adapts, want a fixed one: it would learn nothing from streams", what, g.Name())
	}
}
