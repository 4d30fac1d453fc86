package admit

import "time"

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
	// Wait is how long the call waited, and RetryAfter the delay that it was told, or 0.
	Wait, RetryAfter time.Duration
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

// A refusalLog samples refusals. The gate's lock guards it. A refusal that is not sampled
// costs one comparison. The samples are about sampleGap apart for each reason, whatever the
// rate. It allocates its memory at the first refusal.
type refusalLog struct {
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
func (l *refusalLog) due(why Reason) bool {
	l.seen[why]++
	return l.seen[why] > l.next[why]
}

// add returns the place for a sample, and decides when the next one is taken.
func (l *refusalLog) add(why Reason, now time.Duration) *refusedCall {
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
func (l *refusalLog) relax(now time.Duration) {
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

// refusals returns the samples, the oldest first.
func (l *look) refusals() []RefusedCall {
	raw := lastOf(l, mostRefusals, func() ([]refusedCall, int) {
		if l.record.refused.ring == nil {
			return nil, 0
		}
		return l.record.refused.ring[:], l.record.refused.count
	})
	all := make([]RefusedCall, len(raw))
	for i := range raw {
		r := &raw[i]
		all[i] = r.RefusedCall
		all[i].At, all[i].Method, all[i].Tenant = l.clock.date(r.at), r.method.String(), r.tenant.String()
	}
	return all
}
