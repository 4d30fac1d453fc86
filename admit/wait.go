package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// A waiter is a call in the queue. Its fields are guarded by the gate's lock,
// except for ready, which carries the verdict, once.
type waiter struct {
	turn.Waiter

	ready   chan *Refusal // nil: the permit is yours
	pressed bool          // no permit was free
	claim   claim         // what it was given
	granted time.Duration // when it was given that
	timer   *time.Timer
}

func newWaiter() *waiter {
	w := &waiter{ready: make(chan *Refusal, 1)}
	w.Owner = w
	return w
}

// waiterOf returns the gate's part of a call that package turn has chosen.
func waiterOf(w *turn.Waiter) *waiter { return w.Owner.(*waiter) } //nolint:forcetypeassert // the queue holds no others

// queueAndUnlock asks whether a call may wait, and waits or refuses it.
func (g *Gate) queueAndUnlock(ctx context.Context, c turn.Call, now time.Duration, pressed bool) (Permit, error) {
	class, s := classOf(c.Class), g.load()
	if why, shut := g.turns.Shut(c, s.limit()); shut {
		return g.refuseAndUnlock(class, reasonOf[why])
	}
	var deadline, least time.Duration
	if d, has := ctx.Deadline(); has {
		deadline, least = max(1, d.Sub(g.epoch)), g.least.of(class, now)
	}
	verdict := g.turns.Ask(c, g.room(s, now), deadline, least)
	if !verdict.Wait {
		return g.refuseAndUnlock(class, reasonOf[verdict.Why])
	}
	if verdict.Evict != nil {
		g.refuseLocked(waiterOf(verdict.Evict), reasonOf[verdict.Why], now)
	}
	w := g.waiters.Get().(*waiter) //nolint:forcetypeassert // the pool makes nothing else
	w.Class, w.Cost, w.Since, w.Deadline, w.Trial = c.Class, c.Cost, now, deadline, verdict.Trial
	w.pressed = pressed
	g.turns.Join(&w.Waiter, c.Tenant, g.room(s, now))
	if g.settleLocked(); g.load().free() { // a permit came free before releases were sent to the lock
		g.dispatchLocked(now)
	}
	patience := g.cfg.maxWait()
	g.mu.Unlock()
	if int64(now) >= g.foldAt.Load() {
		g.fold(now) // calls wait, and perhaps none ends
	}
	return g.wait(ctx, w, patience)
}

// wait waits for the verdict on w, at most for patience if that is not 0.
func (g *Gate) wait(ctx context.Context, w *waiter, patience time.Duration) (Permit, error) {
	var late <-chan time.Time
	if patience > 0 && (w.Deadline == 0 || w.Since+patience < w.Deadline) {
		late = w.startTimer(patience)
	}
	var refused *Refusal
	left := false // it left by itself
	select {
	case refused = <-w.ready:
	case <-ctx.Done():
		refused, left = g.withdraw(w, true)
	case <-late:
		refused, left = g.withdraw(w, ctx.Err() != nil)
	}
	class, since, granted, got, pressed := classOf(w.Class), w.Since, w.granted, w.claim, w.pressed
	now := g.now()
	w.stopTimer()
	g.waiters.Put(w)

	switch err := ctx.Err(); {
	case left:
		g.tellLeft(class, now-since, err)
		return Permit{}, err
	case refused != nil:
		g.tellRefused(g.hooks(), class, refused.Reason, now-since)
		return Permit{}, refused
	case err != nil: // the permit goes to the next call
		g.giveBack(got, now)
		return Permit{}, g.left(class, now-since, err)
	}
	g.holding(got, func() { g.countWaited(class, now-since) })
	return Permit{gate: g, start: granted, claim: got, pressed: pressed, waited: granted - since}, nil
}

func (w *waiter) startTimer(d time.Duration) <-chan time.Time {
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	return w.timer.C
}

func (w *waiter) stopTimer() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// withdraw takes w out of the queue, because its caller leaves or because it has
// waited for too long, and counts that. If its verdict was faster, that stands.
func (g *Gate) withdraw(w *waiter, leaves bool) (refused *Refusal, left bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.Queued() {
		return <-w.ready, false // sent before the lock was released: does not block
	}
	now := g.now()
	r := g.room(g.load(), now)
	why := WaitedTooLong
	if g.turns.AtBound(&w.Waiter, r) {
		why = OverShare // it waited for permits that its own tenant holds
	}
	g.turns.Remove(&w.Waiter, r)
	if leaves {
		g.totals.left++
	} else {
		g.totals.refused[w.Class][why]++
		refused = g.refusalLocked(why)
	}
	g.dispatchLocked(now) // the calls behind it may want less
	return refused, leaves
}

// refuseLocked takes w out of the queue, tells it why, and counts that.
func (g *Gate) refuseLocked(w *waiter, why Reason, now time.Duration) {
	g.turns.Remove(&w.Waiter, g.room(g.load(), now))
	g.totals.refused[w.Class][why]++
	w.ready <- g.refusalLocked(why)
}

// dispatchLocked hands free permits to waiters. The next one may cost more than
// is free: then it waits for its permits, and all others behind it.
func (g *Gate) dispatchLocked(now time.Duration) {
	for g.turns.Len() > 0 {
		s := g.load()
		if !s.free() {
			break
		}
		r := g.room(s, now)
		next, cost := g.turns.Next(r)
		if next == nil {
			break
		}
		w := waiterOf(next)
		if why, sheds := g.shedsLocked(classOf(w.Class)); sheds {
			g.refuseLocked(w, why, now)
			continue
		}
		switch {
		case g.turns.TooLate(next, g.least.of(classOf(w.Class), now), r):
			g.refuseLocked(w, DeadlineTooClose, now)
		case s.inFlight()+cost > s.limit():
			return
		default:
			g.grantLocked(w, cost, now)
		}
	}
	g.settleLocked()
}

// grantLocked gives w its permits. Its latency counts from here: the time that
// its goroutine takes to wake up is part of what they are held for.
func (g *Gate) grantLocked(w *waiter, cost int, now time.Duration) {
	g.addLocked(cost)
	holder := g.turns.Serve(&w.Waiter, cost, g.room(g.load(), now))
	w.claim = claim{cost: cost, class: classOf(w.Class), holder: holder, begun: g.begin(g.load().inFlight())}
	w.granted = now
	w.ready <- nil
}
