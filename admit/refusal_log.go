package admit

import (
	"context"
	"time"
)

// A RefusedCall is a refusal, with the state of the gate at that moment. In a dry run it is a
// call that would have been refused.
type RefusedCall struct {
	// At is when the call was refused, and Reason is why.
	At     time.Time
	Reason Reason
	// Method and Tenant name the call and its tenant, cut off after 96 bytes.
	Method, Tenant string
	// Class is the class of the call.
	Class Class
	// Waited is how long the call waited, and RetryAfter the delay that it was told, or 0.
	Waited, RetryAfter time.Duration
	// TimeLeft is the time until the caller would have given up. It is 0 without a deadline.
	TimeLeft time.Duration
	// Limit, InFlight and Queue are the permits of the gate, the ones in use, and the waiters.
	// Waiting is the number of waiters of the class. Standing tells whether the queue stood for it.
	Limit, InFlight, Queue, Waiting int
	Standing                        bool
	// Most is the number of permits that the class may hold, and Held the number that it held.
	// Both are 0 unless ClassConfig.Max bounds the class.
	Held, Most int
	// Pace is the mean time between two permits that come back, or 0 if it is not known. If
	// none has come back for longer, it is that time.
	Pace time.Duration
	// Represents is the number of refusals for the reason since the last sample, this one included.
	Represents uint64
}

const (
	mostRefusals  = 100
	mostRefusedOf = 96 // bytes of a name
	// sampleGap is the time between two samples of a reason at a steady rate.
	sampleGap = 500 * time.Millisecond
)

// A refusedLog samples refusals. The gate's lock guards it. A refusal that is not sampled
// costs one comparison. The samples are about sampleGap apart for each reason, whatever the
// rate. It allocates its memory at the first refusal.
type refusedLog struct {
	seen  [NumReasons]uint64        // refusals so far
	next  [NumReasons]uint64        // value of seen at which to take a sample
	step  [NumReasons]uint64        // refusals between two samples
	last  [NumReasons]time.Duration // when the last sample was taken
	took  [NumReasons]uint64        // value of seen then
	ring  *[mostRefusals]refusedCall
	count int // samples so far
}

// A text is a name of bounded length that is copied, so that no long one is kept.
type text struct {
	bytes [mostRefusedOf]byte
	n     uint8
}

func (t *text) set(s string)   { t.n = uint8(copy(t.bytes[:], s)) }
func (t *text) String() string { return string(t.bytes[:t.n]) }

type refusedCall struct {
	RefusedCall // without At, Method and Tenant

	at             time.Duration
	method, tenant text
}

// due counts a refusal and reports whether to take a sample.
func (l *refusedLog) due(why Reason) bool {
	l.seen[why]++
	return l.seen[why] > l.next[why]
}

// add returns the place for a sample, and decides when the next one is taken.
func (l *refusedLog) add(why Reason, now time.Duration) *refusedCall {
	if l.ring == nil {
		l.ring = new([mostRefusals]refusedCall)
	}
	switch {
	case l.took[why] > 0 && now-l.last[why] < sampleGap:
		l.step[why] = min(2*l.step[why]+1, 1<<20)
	case now-l.last[why] > 2*sampleGap:
		l.step[why] /= 4
	}
	r := &l.ring[l.count%mostRefusals]
	l.count++
	*r = refusedCall{at: now}
	r.Reason, r.Represents = why, l.seen[why]-l.took[why]
	l.last[why], l.took[why], l.next[why] = now, l.seen[why], l.seen[why]+l.step[why]
	return r
}

// relax takes the next sample soon for each reason that has none of late.
func (l *refusedLog) relax(now time.Duration) {
	if l.ring == nil {
		return
	}
	for why := range l.next {
		if l.next[why] > l.seen[why] && now-l.last[why] >= sampleGap {
			l.next[why] = l.seen[why]
			l.step[why] /= 2
		}
	}
}

// lastRefusals returns the samples, the oldest first.
func (g *Gate) lastRefusals() []RefusedCall {
	raw := lastOf(g, mostRefusals, func() ([]refusedCall, int) {
		if g.refused.ring == nil {
			return nil, 0
		}
		return g.refused.ring[:], g.refused.count
	})
	all := make([]RefusedCall, len(raw))
	for i := range raw {
		r := &raw[i]
		all[i] = r.RefusedCall
		all[i].At, all[i].Method, all[i].Tenant = g.epoch.Add(r.at), r.method.String(), r.tenant.String()
	}
	return all
}

// countRefusedLocked counts the refusal of a call that has not waited. refusal is nil if the
// call runs all the same, or if the delay is not known here.
func (g *Gate) countRefusedLocked(ctx context.Context, c Call, why Reason, refusal *Refusal) {
	g.counters.refused[c.Class][why]++
	if !g.refused.due(why) {
		return
	}
	now := g.now()
	var left time.Duration
	if d := g.deadlineOf(ctx); d > 0 {
		left = d - now
	}
	g.sampleLocked(c, why, now, 0, left, refusal)
}

// countWaiterLocked counts the refusal of a call that waited.
func (g *Gate) countWaiterLocked(w *waiter, why Reason, now time.Duration) *Refusal {
	if g.refusals.quiet.due() {
		g.seeSilenceLocked(now)
	}
	refusal := g.refusals.get(why, &g.dice)
	g.counters.refused[w.Class][why]++
	if g.refused.due(why) {
		var left time.Duration
		if w.Deadline > 0 {
			left = w.Deadline - now
		}
		g.sampleLocked(w.call, why, now, now-w.Since, left, refusal)
	}
	return refusal
}

// sampleLocked takes a sample of a refusal.
func (g *Gate) sampleLocked(c Call, why Reason, now, waited, left time.Duration, refusal *Refusal) {
	r, s := g.refused.add(why, now), g.inFlight.load()
	r.method.set(c.Method)
	r.tenant.set(c.Tenant)
	r.Class, r.Waited, r.TimeLeft = c.Class, waited, left
	if refusal != nil {
		r.RetryAfter = refusal.RetryAfter
	}
	r.Limit, r.InFlight, r.Queue = s.limit(), s.inFlight(), g.turns.Len()
	if r.Most = g.turns.Bound(int(c.Class), s.limit()); r.Most > 0 {
		r.Held = g.turns.Held(int(c.Class))
	}
	r.Waiting, r.Standing, r.Pace = g.turns.Waiting(int(c.Class)), g.turns.Standing(int(c.Class)), max(g.pace.least, g.refusals.quiet.lasts)
}
