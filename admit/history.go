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

// A history holds the memories of a gate. The gate's lock guards it. It is filled as
// calls end, so a gate without calls adds nothing.
type history struct {
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

// begin makes room for the memories. It is called before any are kept.
func (h *history) begin(now time.Duration) {
	if h.memories == nil {
		h.memories = &memories{}
		h.now.at = now + momentEvery
	}
}

// see looks at the state of a gate. Gather the samples first.
func (h *history) see(r *recorder, now time.Duration) {
	if n := r.counters.ended[Ignored] + r.counters.ended[Success] + r.counters.ended[Overload]; n != h.count {
		h.count, h.ended = n, max(now, 1)
	}
	h.begin(now)
	if now >= h.now.at {
		h.close(r, now)
	}
	m, s := &h.now, r.permits.inUse.load()
	m.limit = int32(s.limit())
	m.inFlight = max(m.inFlight, int32(min(max(r.permits.inUse.peak.Load(), int64(s.inFlight())), manyInFlight)))
	m.queue = max(m.queue, int32(r.permits.queue.Len()))
	for c := range MaxClasses {
		m.held[c] = max(m.held[c], int32(min(max(r.permits.queue.Held(c), r.running.held[c]), manyInFlight)))
		m.waiting[c] = max(m.waiting[c], int32(r.permits.queue.Waiting(c)))
		if w := r.permits.queue.First(c); w != nil {
			m.oldest = max(m.oldest, now-w.Since)
		}
	}
}

// close ends the current moment. If no call ended for long, it lasts for longer.
func (h *history) close(r *recorder, now time.Duration) {
	m := &h.now
	m.at = now
	for o, n := range r.counters.ended {
		m.ended[o] = n - h.before.ended[o]
	}
	for c := range r.counters.refused {
		for why, n := range r.counters.refused[c] {
			m.refused[c] += n - h.before.refused[c][why]
		}
	}
	h.before = r.counters
	h.moments[h.nth%mostMoments] = *m
	h.nth++
	h.now = moment{at: now + momentEvery}
}

// decide remembers a change of the limit.
func (h *history) decide(now time.Duration, from, to int, why limit.Explanation) {
	h.begin(now)
	h.decisions[h.decided%mostDecisions] = decision{now, from, to, why}
	h.decided++
}

func (h *history) lastEnd(c *clock) time.Time {
	if h.ended == 0 {
		return time.Time{}
	}
	return c.date(h.ended)
}

// decisions returns the last changes of the limit, the oldest first.
func (l *look) decisions() []Decision {
	raw := lastOf(l, mostDecisions, func() ([]decision, int) { return l.record.history.decisions[:], l.record.history.decided })
	all := make([]Decision, len(raw))
	for i, d := range raw {
		all[i] = Decision{l.clock.date(d.at), d.from, d.to, d.why}
	}
	return all
}

// moments returns the moments of the last five minutes, the oldest first.
func (l *look) moments() []Moment {
	raw := lastOf(l, mostMoments, func() ([]moment, int) { return l.record.history.moments[:], l.record.history.nth })
	all := make([]Moment, len(raw))
	for i := range raw {
		all[i] = raw[i].public(l.clock)
	}
	return all
}

func (m *moment) public(c *clock) Moment {
	out := Moment{
		At: c.date(m.at), Limit: int(m.limit), InFlight: int(m.inFlight), Queue: int(m.queue), Oldest: m.oldest,
		Ended: m.ended, Refused: m.refused,
	}
	for i := range MaxClasses {
		out.Waiting[i], out.Held[i] = int(m.waiting[i]), int(m.held[i])
	}
	return out
}
