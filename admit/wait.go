package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// A waiter is a call in the queue. The gate's lock guards its fields, except for
// verdict, which receives one.
type waiter struct {
	turn.Waiter

	verdict chan *Refusal // nil if the waiter was admitted
	call    Call          // with a class of the gate
	pressed bool          // no permit was free when it came
	claim   claim         // the permits that it got
	granted time.Duration // when
	timer   *time.Timer
}

func newWaiter() *waiter {
	w := &waiter{verdict: make(chan *Refusal, 1)}
	w.Owner = w
	return w
}

// waiterOf returns the waiter that package turn has chosen.
func waiterOf(w *turn.Waiter) *waiter { return w.Owner.(*waiter) } //nolint:forcetypeassert // the queue holds no others

// queueLocked puts a call into the queue. It returns nil and the reason if the call may not wait.
func (g *Gate) queueLocked(a *arrival) (w *waiter, why Reason) {
	q, c, now, s := g.permits.queue, a.asks, a.at, g.inFlight.load()
	if why, shut := q.Shut(c, s.limit()); shut {
		return nil, reasonOf[why]
	}
	var least time.Duration
	deadline := g.clock.deadlineOf(a.ctx)
	if deadline > 0 {
		least = g.record.shortest.of(a.call.Class, now)
	}
	verdict := q.Ask(c, g.permits.room(s, now), deadline, least)
	if !verdict.Wait {
		return nil, reasonOf[verdict.Why]
	}
	if verdict.Evict != nil {
		g.refuseWaiterLocked(waiterOf(verdict.Evict), reasonOf[verdict.Why], now)
	}
	w = g.waiters.Get().(*waiter) //nolint:forcetypeassert // the pool makes nothing else
	w.Class, w.Cost, w.Since, w.Deadline, w.Trial = c.Class, c.Cost, now, deadline, verdict.Trial
	w.call, w.pressed = a.call, a.pressed
	if q.Waiting(c.Class) == 0 {
		g.record.late.forget(a.call.Class)
	}
	q.Join(&w.Waiter, c.Tenant, g.permits.room(s, now))
	// A permit may have come back before the lock bit was set. No release would hand it
	// over.
	if g.useLockLocked(); g.inFlight.load().free() {
		g.dispatchLocked(now)
	}
	return w, 0
}

// wait blocks until w has its verdict, ctx ends, or patience has passed. A patience of 0
// has no end. It returns w to the pool.
func (g *Gate) wait(ctx context.Context, w *waiter, patience time.Duration, p *Permit) error {
	if g.record.samples.isDue(w.Since) { // perhaps no call ends
		g.learnWaiting(w)
	}
	var tooLong <-chan time.Time
	if patience > 0 && (w.Deadline == 0 || w.Since+patience < w.Deadline) {
		tooLong = w.startTimer(patience)
	}
	var refused *Refusal
	left := false // the context ended before the verdict
	select {
	case refused = <-w.verdict:
	case <-ctx.Done():
		refused, left = g.withdraw(w, true)
	case <-tooLong:
		refused, left = g.withdraw(w, ctx.Err() != nil)
	}
	call, got, pressed, since, granted, deadline := w.call, w.claim, w.pressed, w.Since, w.granted, w.Deadline
	now := g.clock.now()
	w.stopTimer()
	w.call, w.claim = Call{}, claim{}
	g.waiters.Put(w)

	switch err := ctx.Err(); {
	case left:
		g.hooks.left(ctx, call, now-since, err)
		return err
	case refused != nil:
		g.hooks.refused(ctx, call, refused.Reason, now-since)
		return refused
	case err != nil: // the permit goes to the next waiter
		g.giveBack(got, now)
		return g.leave(ctx, call, now-since, err)
	}
	g.holding(got, func() { g.countWaited(ctx, call, now-since) })
	g.yield.maybe(g.InFlight())
	p.gate, p.start, p.claim, p.pressed, p.wait, p.deadline = g, granted, got, pressed, granted-since, deadline
	return nil
}

// learnWaiting is learn for a waiter. If the algorithm or a hook ends the goroutine with
// runtime.Goexit, nobody receives the verdict, and the permits go to the next waiter.
func (g *Gate) learnWaiting(w *waiter) {
	learned := false
	defer func() {
		if learned {
			return
		}
		if refused, left := g.withdraw(w, true); refused == nil && !left {
			g.giveBack(w.claim, g.clock.now())
		}
	}()
	g.learn(w.Since)
	learned = true
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

// withdraw removes w from the queue and counts that. It leaves if its context has ended,
// and otherwise it has waited too long. If w has its verdict already, that stands.
func (g *Gate) withdraw(w *waiter, leaves bool) (refused *Refusal, left bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.Queued() {
		return <-w.verdict, false // sent under the lock, so this does not block
	}
	now := g.clock.now()
	r := g.permits.roomNow(now)
	why := WaitedTooLong
	if g.permits.queue.AtBound(&w.Waiter, r) {
		why = OverShare // it waited for permits that its own tenant holds
	}
	g.permits.queue.Remove(&w.Waiter, r)
	if leaves {
		g.record.counters.left++
	} else {
		refused = g.record.refuseWaiter(w, why, now)
	}
	g.dispatchLocked(now) // the waiters behind it may want fewer permits
	return refused, leaves
}

// countWaited counts a call that was admitted after waiting, and reports it to the hooks.
func (g *Gate) countWaited(ctx context.Context, c Call, wait time.Duration) {
	g.mu.Lock()
	g.record.counters.wait(wait)
	g.mu.Unlock()
	g.hooks.waited(ctx, c, wait)
}
