package interceptors

import (
	"errors"
	"fmt"
	"slices"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/match"
	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by every error of [Server] and [Client]. Such an error names every
// wrong value, with the values that are allowed.
var ErrConfig = errors.New("interceptors: invalid configuration")

// checkOptions returns the mistakes of the options, joined. A class must belong to at least one
// of the gates. Gates that are not made are left out.
func (c *config) checkOptions(gates ...*admit.Gate) error {
	bad := slices.Clone(c.wrong)
	bad.From("WithMatcher", match.Check(c.matcher), nil)
	c.streams.check(&bad)
	known := classNames(gates)
	for _, rule := range c.classes {
		what := fmt.Sprintf("WithClassFor(%v)", rule.class)
		bad.From(what, match.Check(rule.matcher), nil)
		bad.That(known == nil || slices.Contains(known, rule.class),
			"%s: got a class that no gate has, want one of %v, or admit.WithClassConfig for it", what, known)
	}
	return errors.Join(bad...)
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
	if err := c.checkOptions(g); err != nil {
		return refusal.Misconfigured(err)
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
