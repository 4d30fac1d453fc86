package debug

import (
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/retry"
)

const (
	// recentFor is the least time over which findings count calls. Refusals often come in
	// bursts, and a finding must not vanish between two of them.
	recentFor = 5 * time.Second
	// longestRecent is the greatest age of counters that still describe the present.
	longestRecent = 15 * time.Second
)

// counted are the counters of gates and of meters of retries at one moment.
type counted struct {
	at    time.Time
	gates map[*admit.Gate]admit.Stats
	tries map[*retry.Meter]retried
}

// A past keeps the counters of two earlier snapshots. While the page is looked at, the first
// ones are between recentFor and twice that old.
type past struct{ first, second *counted }

// basis returns the counters from which to count, or nil.
func (p *past) basis(now time.Time) *counted {
	tooOld := func(c *counted) bool { return c != nil && now.Sub(c.at) > longestRecent }
	if tooOld(p.first) || p.second != nil && now.Sub(p.second.at) >= recentFor {
		p.first, p.second = p.second, nil
	}
	if tooOld(p.first) {
		p.first = nil
	}
	return p.first
}

// keep remembers the counters of a snapshot if later ones need them.
func (p *past) keep(c *counted) {
	switch {
	case p.first == nil:
		p.first = c
	case p.second == nil && c.at.Sub(p.first.at) >= recentFor:
		p.second = c
	}
}

// retriesOf returns the counts of a meter of retries, and their age.
func (c *counted) retriesOf(m *retry.Meter, now time.Time) (retried, time.Duration) {
	if c == nil {
		return nil, 0
	}
	return c.tries[m], now.Sub(c.at)
}

// A recent counts the calls that a gate refused and ended within some seconds.
type recent struct {
	over    time.Duration
	refused [admit.MaxClasses][admit.NumReasons]uint64
	total   uint64                    // refused
	ended   [admit.NumOutcomes]uint64 // calls, by outcome
	left    uint64
	stalls  uint64 // streams ended by interceptors.StreamRule.SendStall
}

// since counts the calls of a gate since c. If c is nil, or younger than recentFor, the
// gate's own samples and history cover the time before.
func (c *counted) since(g *admit.Gate, i *admit.Inspection, now time.Time) (r recent) {
	began := now
	if c != nil {
		if before, ok := c.gates[g]; ok {
			began = c.at
			r.count(&i.Stats, &before)
			r.stalls = i.Stats.SendStalls - before.SendStalls
		}
	}
	if r.over = now.Sub(began); r.over >= recentFor {
		return r
	}
	r.over = recentFor
	for n := range i.Refusals {
		if one := &i.Refusals[n]; !one.At.After(began) && now.Sub(one.At) < recentFor {
			r.refused[one.Class][one.Reason] += one.Represents
			r.total += one.Represents
		}
	}
	if n := len(i.History); n > 0 && now.Sub(i.History[n-1].At) < recentFor {
		for o, ended := range i.History[n-1].Ended {
			r.ended[o] += ended
		}
	}
	return r
}

// count adds the difference of two states of a gate.
func (r *recent) count(s, before *admit.Stats) {
	for c := range s.Refused {
		for why, n := range s.Refused[c] {
			r.refused[c][why] += n - before.Refused[c][why]
			r.total += n - before.Refused[c][why]
		}
	}
	for o, n := range s.Ended {
		r.ended[o] += n - before.Ended[o]
	}
	r.left += s.Left - before.Left
}

// useless reports whether calls end and fewer than one in ten of them succeeds, at a full gate
// that loses calls. A gate of streams never has a success, because streams teach the limit
// nothing.
func (r *recent) useless(s *admit.Stats) bool {
	all := sum(r.ended[:])
	return s.Utilization() >= 1 && s.Ended[admit.Success] > 0 &&
		all > 0 && 10*r.ended[admit.Success] <= all && r.total+r.left > 0
}
