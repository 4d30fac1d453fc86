package debug

import (
	"fmt"
	"slices"
	"time"

	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

// mostClients bounds the circuits of a breaker, and the targets of a throttle, that are shown.
const mostClients = 200

const (
	// flapping is how often a circuit opens before that is a finding.
	flapping = 3
	// recentlyOpen is how long a circuit that has opened remains a finding, so that a circuit
	// that opens and closes is seen between two openings.
	recentlyOpen = time.Minute
)

// circuits returns the circuits of a breaker. Circuits that are not closed come first.
func circuits(b *breaker.Breaker, f *findings) []*debugpb.Circuit {
	type key struct{ target, method string }
	addresses := map[key][]*debugpb.Address{}
	for _, a := range b.Addresses() {
		k := key{a.Target, a.Method}
		addresses[k] = append(addresses[k], &debugpb.Address{Address: clean(a.Address), Calls: int64(a.Calls), Failed: int64(a.Failed)})
	}
	var troubled, closed []*debugpb.Circuit // a circuit that has just been open is troubled, too
	for _, c := range b.Stats() {
		out := &debugpb.Circuit{
			Breaker: clean(b.Name()), Target: clean(c.Target), Method: clean(c.Method), State: c.State.String(),
			ProbeInSeconds: c.ProbeIn.Seconds(), Allowed: int64(c.Allowed), Refused: int64(c.Refused), Failed: int64(c.Failed),
			Opened: int64(c.Opened), Addresses: addresses[key{c.Target, c.Method}],
		}
		if c.State == breaker.Closed && (c.Opened == 0 || c.OpenedAgo > recentlyOpen) {
			closed = append(closed, out)
			continue
		}
		troubled = append(troubled, out)
		f.circuit(out, c)
	}
	all := slices.Concat(troubled, closed)
	return all[:min(len(all), mostClients)]
}

func (f *findings) circuit(out *debugpb.Circuit, c breaker.CircuitStats) {
	text := fmt.Sprintf("The circuit of %s at %s is %s: so far %d of %s failed.",
		out.GetMethod(), out.GetTarget(), out.GetState(), c.Failed, many(int64(c.Allowed), "sent call"))
	switch {
	case c.State == breaker.Closed:
		text += fmt.Sprintf(" It opened %s ago, and calls pass again now.", inWords(c.OpenedAgo))
	case c.State == breaker.Open && c.ProbeIn > 0:
		text += fmt.Sprintf(" Calls are refused here for %s, then the next call is a probe.", inWords(c.ProbeIn))
	default:
		text += " The next calls are probes."
	}
	if c.Opened >= flapping {
		text += fmt.Sprintf(" It has opened %d times so far.", c.Opened)
	}
	text += " The log of the target says why its calls fail."
	f.add(debugpb.Finding_LEVEL_WARNING, "breaker "+out.GetBreaker(), text)
}

// throttles returns the targets of a throttle. Targets that are refused here come first.
func throttles(t *throttle.Throttle, f *findings) []*debugpb.Throttle {
	var refusing, rest []*debugpb.Throttle
	for _, s := range t.Stats() {
		out := &debugpb.Throttle{
			Throttle: clean(t.Name()), Target: clean(s.Target), Method: clean(s.Method), Class: clean(s.Class), Probability: s.Probability,
			Allowed: int64(s.Allowed), Refused: int64(s.Refused), Accepted: int64(s.Accepted), Rejected: int64(s.Rejected),
		}
		if s.Probability < noteworthy {
			rest = append(rest, out)
			continue
		}
		refusing = append(refusing, out)
		f.add(debugpb.Finding_LEVEL_WARNING, "throttle "+out.GetThrottle(), fmt.Sprintf(
			"%s refuses %s of class %s, so %.0f %% of its calls are refused here. "+
				"The target is full or down, so look there.",
			out.GetTarget(), out.GetMethod(), out.GetClass(), 100*s.Probability))
	}
	all := slices.Concat(refusing, rest)
	return all[:min(len(all), mostClients)]
}

// noteworthy is the least probability of a refusal that is a finding.
const noteworthy = 0.01
