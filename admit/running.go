package admit

import (
	"context"
	"iter"
	"time"
)

// watchFor is how long the gate lists running calls after an Inspect.
const watchFor = time.Minute

// spareRunning is the number of entries that are kept for reuse.
const spareRunning = 1024

// A watch lists the running calls for a while after an Inspect. The gate's lock guards
// it. While it is on, every call takes that lock.
type watch struct {
	on             bool
	until          time.Duration
	oldest, newest *running
	nth            uint64          // of the newest
	held           [MaxClasses]int // permits of listed calls
	spare          *running        // linked by newer
	spares         int
}

// A running is a call in the list.
type running struct {
	call            Call
	cost            int
	since, deadline time.Duration
	nth             uint64 // in the order in which calls began
	older, newer    *running
}

func (w *watch) begin(now time.Duration) { w.on, w.until = true, now+watchFor }

// over ends the watch if its time has passed, and reports whether it ended now.
func (w *watch) over(now time.Duration) bool {
	if !w.on || now < w.until {
		return false
	}
	w.on, w.spare, w.spares = false, nil, 0
	return true
}

// enter lists a call. It returns nil while the watch is off.
func (w *watch) enter(c Call, cost int, since, deadline time.Duration) *running {
	if !w.on {
		return nil
	}
	r := w.spare
	if r == nil {
		r = new(running)
	} else {
		w.spare, w.spares = r.newer, w.spares-1
	}
	w.nth++
	*r = running{call: c, cost: cost, since: since, deadline: deadline, nth: w.nth, older: w.newest}
	if w.newest == nil {
		w.oldest = r
	} else {
		w.newest.newer = r
	}
	w.newest = r
	w.held[c.Class] += cost
	return r
}

// leave removes a call from the list.
func (w *watch) leave(r *running) {
	if r.older == nil {
		w.oldest = r.newer
	} else {
		r.older.newer = r.newer
	}
	if r.newer == nil {
		w.newest = r.older
	} else {
		r.newer.older = r.older
	}
	w.held[r.call.Class] -= r.cost
	*r = running{}
	if w.on && w.spares < spareRunning {
		r.newer = w.spare
		w.spare, w.spares = r, w.spares+1
	}
}

// running returns the listed calls, the oldest first. Calls may come and go between two steps.
func (w *watch) running() iter.Seq[*running] {
	return func(yield func(*running) bool) {
		for r := w.oldest; r != nil; {
			nth := r.nth
			if !yield(r) {
				return
			}
			if r.nth == nth {
				r = r.newer
				continue
			}
			r = w.oldest // it has left
			for r != nil && r.nth < nth {
				r = r.newer
			}
		}
	}
}

// enterLocked lists a call that was admitted without waiting.
func (g *Gate) enterLocked(ctx context.Context, c Call, got *claim, now time.Duration) {
	if g.watch.on {
		got.listed = g.watch.enter(c, got.cost, now, g.deadlineOf(ctx))
	}
}

// deadlineOf returns the deadline of a context on the gate's clock, or 0.
func (g *Gate) deadlineOf(ctx context.Context) time.Duration {
	if d, has := ctx.Deadline(); has {
		return max(1, d.Sub(g.epoch))
	}
	return 0
}
