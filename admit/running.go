package admit

import (
	"iter"
	"time"
)

// listFor is how long the gate lists running calls after an Inspect.
const listFor = time.Minute

// spareRunning is the number of entries that are kept for reuse.
const spareRunning = 1024

// runningCalls lists the running calls for a while after an Inspect. The gate's lock guards
// it. While it is on, every call takes that lock.
type runningCalls struct {
	on             bool
	until          time.Duration
	oldest, newest *runningCall
	nth            uint64          // of the newest
	held           [MaxClasses]int // permits of listed calls
	spare          *runningCall    // linked by newer
	spares         int
}

// A runningCall is a call in the list.
type runningCall struct {
	call            Call
	cost            int
	since, deadline time.Duration
	nth             uint64 // in the order in which calls began
	older, newer    *runningCall
}

func (l *runningCalls) begin(now time.Duration) { l.on, l.until = true, now+listFor }

// over ends the list if its time has passed, and reports whether it ended now.
func (l *runningCalls) over(now time.Duration) bool {
	if !l.on || now < l.until {
		return false
	}
	l.on, l.spare, l.spares = false, nil, 0
	return true
}

// enter lists a call. It returns nil while the list is off.
func (l *runningCalls) enter(c Call, cost int, since, deadline time.Duration) *runningCall {
	if !l.on {
		return nil
	}
	r := l.spare
	if r == nil {
		r = new(runningCall)
	} else {
		l.spare, l.spares = r.newer, l.spares-1
	}
	l.nth++
	*r = runningCall{call: c, cost: cost, since: since, deadline: deadline, nth: l.nth, older: l.newest}
	if l.newest == nil {
		l.oldest = r
	} else {
		l.newest.newer = r
	}
	l.newest = r
	l.held[c.Class] += cost
	return r
}

// leave removes a call from the list.
func (l *runningCalls) leave(r *runningCall) {
	if r.older == nil {
		l.oldest = r.newer
	} else {
		r.older.newer = r.newer
	}
	if r.newer == nil {
		l.newest = r.older
	} else {
		r.newer.older = r.older
	}
	l.held[r.call.Class] -= r.cost
	*r = runningCall{}
	if l.on && l.spares < spareRunning {
		r.newer = l.spare
		l.spare, l.spares = r, l.spares+1
	}
}

// all returns the listed calls, the oldest first. Calls may come and go between two steps.
func (l *runningCalls) all() iter.Seq[*runningCall] {
	return func(yield func(*runningCall) bool) {
		for r := l.oldest; r != nil; {
			nth := r.nth
			if !yield(r) {
				return
			}
			if r.nth == nth {
				r = r.newer
				continue
			}
			r = l.oldest // it has left
			for r != nil && r.nth < nth {
				r = r.newer
			}
		}
	}
}
