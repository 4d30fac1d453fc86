package admit

import (
	"time"

	"github.com/weir-go/weir/limit"
)

// A Moment sums up about five seconds of a gate.
type Moment struct {
	// At is when the seconds ended.
	At time.Time
	// Limit is the limit at the end. InFlight and Queue are the most calls that were seen in
	// flight and waiting, and Oldest is the longest wait that was seen.
	Limit, InFlight, Queue int
	Oldest                 time.Duration
	// Ended counts the calls that ended, by Outcome.
	Ended [NumOutcomes]uint64
	// Waiting and Held are the most waiters and permits of each Class. Held is counted as in
	// Inspection. Refused counts the refused calls of each Class.
	Waiting, Held [MaxClasses]int
	Refused       [MaxClasses]uint64
}

const (
	momentEvery   = 5 * time.Second
	mostMoments   = 60 // five minutes
	mostDecisions = 100
)

// A past holds the memories of a gate. The gate's lock guards it. It is filled as
// calls end, so a gate without calls adds nothing.
type past struct {
	*memories               // nil until the first call ends
	ended     time.Duration // when calls last ended, or 0
	count     uint64        // calls that have ended
}

type memories struct {
	now     moment // being filled
	before  counters
	moments [mostMoments]moment
	nth     int // moments so far

	decisions [mostDecisions]decision
	decided   int // decisions so far
}

// A moment is a Moment in less memory.
type moment struct {
	at                     time.Duration
	limit, inFlight, queue int32
	oldest                 time.Duration
	ended                  [NumOutcomes]uint64
	waiting, held          [MaxClasses]int32
	refused                [MaxClasses]uint64
}

type decision struct {
	at       time.Duration
	from, to int
	why      limit.Explanation
}

// see looks at the state of a gate. The samples are gathered.
func (p *past) see(g *Gate, now time.Duration) {
	if n := g.counters.ended[Ignored] + g.counters.ended[Success] + g.counters.ended[Overload]; n != p.count {
		p.count, p.ended = n, max(now, 1)
	}
	if p.memories == nil {
		p.memories = &memories{}
		p.now.at = now + momentEvery
	}
	if now >= p.now.at {
		p.close(g, now)
	}
	m, s := &p.now, g.inFlight.load()
	m.limit = int32(s.limit())
	m.inFlight = max(m.inFlight, int32(min(max(g.inFlight.peak.Load(), int64(s.inFlight())), manyInFlight)))
	m.queue = max(m.queue, int32(g.turns.Len()))
	for c := range MaxClasses {
		m.held[c] = max(m.held[c], int32(min(max(g.turns.Held(c), g.watch.held[c]), manyInFlight)))
		m.waiting[c] = max(m.waiting[c], int32(g.turns.Waiting(c)))
		if w := g.turns.First(c); w != nil {
			m.oldest = max(m.oldest, now-w.Since)
		}
	}
}

// close ends the current moment. If no call ended for long, it lasts for longer.
func (p *past) close(g *Gate, now time.Duration) {
	m := &p.now
	m.at = now
	for o, n := range g.counters.ended {
		m.ended[o] = n - p.before.ended[o]
	}
	for c := range g.counters.refused {
		for why, n := range g.counters.refused[c] {
			m.refused[c] += n - p.before.refused[c][why]
		}
	}
	p.before = g.counters
	p.moments[p.nth%mostMoments] = *m
	p.nth++
	p.now = moment{at: now + momentEvery}
}

// decide remembers a change of the limit.
func (p *past) decide(now time.Duration, from, to int, why limit.Explanation) {
	if p.memories == nil {
		p.memories = &memories{}
		p.now.at = now + momentEvery
	}
	p.decisions[p.decided%mostDecisions] = decision{now, from, to, why}
	p.decided++
}

func (p *past) lastEnd(epoch time.Time) time.Time {
	if p.ended == 0 {
		return time.Time{}
	}
	return epoch.Add(p.ended)
}

// lastDecisions returns the last changes of the limit, the oldest first.
func (g *Gate) lastDecisions() []Decision {
	raw := lastOf(g, mostDecisions, func() ([]decision, int) { return g.past.decisions[:], g.past.decided })
	all := make([]Decision, len(raw))
	for i, d := range raw {
		all[i] = Decision{g.epoch.Add(d.at), d.from, d.to, d.why}
	}
	return all
}

// lastMoments returns the moments of the last five minutes, the oldest first.
func (g *Gate) lastMoments() []Moment {
	raw := lastOf(g, mostMoments, func() ([]moment, int) { return g.past.moments[:], g.past.nth })
	all := make([]Moment, len(raw))
	for i := range raw {
		all[i] = raw[i].public(g.epoch)
	}
	return all
}

// lastOf copies a ring of a size, the oldest value first. ring returns the ring and the number of
// values so far, with the lock held.
func lastOf[T any](g *Gate, size int, ring func() (values []T, count int)) []T {
	all := make([]T, 0, size)
	g.mu.Lock()
	defer g.mu.Unlock()
	_, end := ring()
	for n := 0; ; n++ {
		values, count := ring()
		n = max(n, count-size) // the older ones are gone
		if n >= end {
			return all
		}
		all = append(all, values[n%size])
		g.restLocked(len(all))
	}
}

func (m *moment) public(epoch time.Time) Moment {
	out := Moment{
		At: epoch.Add(m.at), Limit: int(m.limit), InFlight: int(m.inFlight), Queue: int(m.queue), Oldest: m.oldest,
		Ended: m.ended, Refused: m.refused,
	}
	for c := range MaxClasses {
		out.Waiting[c], out.Held[c] = int(m.waiting[c]), int(m.held[c])
	}
	return out
}
