package interceptors

import (
	"fmt"

	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/interceptors/internal/match"
	"github.com/weir-go/weir/internal/check"
)

// validateGates checks Gates. lasting tells that a stream holds its permit until its end.
func (c *ServerConfig) validateGates(bad *check.Errors, lasting bool) {
	for i, r := range c.Gates {
		what := fmt.Sprintf("server: Gates[%d]", i)
		bad.That(r.Gate != nil, "%s: Gate: got nil, want a gate", what)
		checkGate(bad, what+": Gate", r.Gate, r.Streams && lasting)
		bad.From(what+": Match", match.Check(r.Match), nil)
		if !made(r.Gate) {
			continue
		}
		bad.That(r.Gate != c.Gate && r.Gate != c.Streams, "%s: Gate: got the gate of Gate or Streams, want one of its own", what)
		if c.Gate != nil && r.Gate != c.Gate {
			bad.That(r.Gate.Name() != c.Gate.Name(), "%s: Gate: got the name %q of Gate, want one of its own", what, r.Gate.Name())
		}
		if c.Streams != nil && r.Gate != c.Streams {
			bad.That(r.Gate.Name() != c.Streams.Name(), "%s: Gate: got the name %q of Streams, want one of its own", what, r.Gate.Name())
		}
		for j, before := range c.Gates[:i] {
			checkOrder(bad, what, r, fmt.Sprintf("Gates[%d]", j), before)
		}
	}
}

// checkOrder checks a rule against an earlier one.
func checkOrder(bad *check.Errors, what string, r gates.Rule, where string, before gates.Rule) {
	if made(before.Gate) {
		bad.That(r.Gate != before.Gate, "%s: Gate: got the gate of %s, want one of its own, or one rule for both", what, where)
		bad.That(r.Gate == before.Gate || r.Gate.Name() != before.Gate.Name(),
			"%s: Gate: got the name %q of %s, want one of its own", what, r.Gate.Name(), where)
	}
	if r.Streams != before.Streams {
		return
	}
	bad.That(before.Match != nil, "%s: got a rule that no call reaches, want it before %s, which is for every call", what, where)
	mine, _ := r.Match.(*match.Methods)
	theirs, _ := before.Match.(*match.Methods)
	if mine == nil || theirs == nil {
		return
	}
	for _, name := range mine.Covered(theirs) {
		bad.That(false, "%s: Match: got %q, which is for %s already, want it in one of them", what, name, where)
	}
}
