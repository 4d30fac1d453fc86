package admit

import "time"

// A pacer estimates the mean of a duration that calls have: how long they last, or the pace, which
// is the time between two permits that come back while all are in use. The gate's lock guards it.
//
// The estimate refuses calls that would wait too long, so it must err towards admitting. If the
// process does not run for a moment, the calls that run meanwhile take long, which says nothing
// about the calls that come afterwards. So the estimate is the least of the latest spans, just as
// the bandwidth is the largest that was seen lately in Cardwell et al., "BBR:
// Congestion-Based Congestion Control", ACM Queue 14(5), 2016. The first span counts once it has
// ended. A server that has become slower is known to be so after two seconds. Its queue stands
// before.
type pacer struct {
	spans [paceSpans]time.Duration // the mean of each, or 0
	next  int                      // the oldest of them
	since time.Duration            // when the current span began
	n     int                      // calls of the current span
	sum   float64                  // of their durations, in seconds
	least time.Duration            // the estimate, or 0 if nothing is known
}

const (
	paceSpan  = 125 * time.Millisecond
	paceSpans = 16
)

// see notes the calls of a window that ends now, and the mean of their durations.
func (p *pacer) see(now time.Duration, calls int, mean time.Duration) {
	if now-p.since >= paceSpan && (p.n > 0 || p.least > 0) {
		p.spans[p.next] = p.mean()
		p.next = (p.next + 1) % paceSpans
		p.since, p.n, p.sum = now, 0, 0
	}
	p.n += calls
	p.sum += float64(calls) * mean.Seconds()
	p.least = 0
	for _, d := range p.spans {
		if d > 0 && (p.least == 0 || d < p.least) {
			p.least = d
		}
	}
	if p.least > 0 && p.n > 0 {
		p.least = min(p.least, p.mean())
	}
}

// mean returns the mean of the current span, or 0 if no call is in it.
func (p *pacer) mean() time.Duration { return seconds(p.sum / float64(max(1, p.n))) }
