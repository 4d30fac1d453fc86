package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// A waiter is a call in the queue. The gate's lock guards its fields, except for ready,
// which receives one verdict.
type waiter struct {
	turn.Waiter

	ready   chan *Refusal // nil if the waiter was admitted
	call    Call          // with a class of the gate
	pressed bool          // no permit was free when it came
	claim   claim         // the permits that it got
	granted time.Duration // when
	timer   *time.Timer
}

func newWaiter() *waiter {
	w := &waiter{ready: make(chan *Refusal, 1)}
	w.Owner = w
	return w
}

// waiterOf returns the waiter that package turn has chosen.
func waiterOf(w *turn.Waiter) *waiter { return w.Owner.(*waiter) } //nolint:forcetypeassert // the queue holds no others

// queueAndUnlock queues a call and waits for its verdict, or refuses the call.
func (g *Gate) queueAndUnlock(ctx context.Context, call Call, c turn.Call, now time.Duration, pressed bool) (Permit, error) {
	s := g.inFlight.load()
	if why, shut := g.turns.Shut(c, s.limit()); shut {
		return g.refuseAndUnlock(ctx, call, reasonOf[why])
	}
	var least time.Duration
	deadline := g.deadlineOf(ctx)
	if deadline > 0 {
		least = g.shortest.of(call.Class, now)
	}
	verdict := g.turns.Ask(c, g.roomLocked(s, now), deadline, least)
	if !verdict.Wait {
		return g.refuseAndUnlock(ctx, call, reasonOf[verdict.Why])
	}
	if verdict.Evict != nil {
		g.refuseWaiterLocked(waiterOf(verdict.Evict), reasonOf[verdict.Why], now)
	}
	w := g.waiters.Get().(*waiter) //nolint:forcetypeassert // the pool makes nothing else
	w.Class, w.Cost, w.Since, w.Deadline, w.Trial = c.Class, c.Cost, now, deadline, verdict.Trial
	w.call, w.pressed = call, pressed
	if g.turns.Waiting(c.Class) == 0 {
		g.late.forget(call.Class)
	}
	g.turns.Join(&w.Waiter, c.Tenant, g.roomLocked(s, now))
	// A permit may have come back before the lock bit was set. No release would hand it
	// over.
	if g.useLockLocked(); g.inFlight.load().free() {
		g.dispatchLocked(now)
	}
	patience := g.cfg.maxWait()
	g.mu.Unlock()
	if g.samples.isDue(now) { // perhaps no call ends
		g.learn(now)
	}
	return g.wait(ctx, w, patience)
}

// wait blocks until w has its verdict, ctx ends, or patience has passed. A patience of 0
// has no end. It returns w to the pool.
func (g *Gate) wait(ctx context.Context, w *waiter, patience time.Duration) (Permit, error) {
	var late <-chan time.Time
	if patience > 0 && (w.Deadline == 0 || w.Since+patience < w.Deadline) {
		late = w.startTimer(patience)
	}
	var refused *Refusal
	left := false // the context ended before the verdict
	select {
	case refused = <-w.ready:
	case <-ctx.Done():
		refused, left = g.withdraw(w, true)
	case <-late:
		refused, left = g.withdraw(w, ctx.Err() != nil)
	}
	call, since, granted, got, pressed, due := w.call, w.Since, w.granted, w.claim, w.pressed, w.Deadline
	now := g.now()
	w.stopTimer()
	w.call, w.claim = Call{}, claim{}
	g.waiters.Put(w)

	switch err := ctx.Err(); {
	case left:
		g.hooks().left(ctx, call, now-since, err)
		return Permit{}, err
	case refused != nil:
		g.hooks().refused(ctx, call, refused.Reason, now-since)
		return Permit{}, refused
	case err != nil: // the permit goes to the next waiter
		g.giveBack(got, now)
		return Permit{}, g.leave(ctx, call, now-since, err)
	}
	g.holding(got, func() { g.countWaited(ctx, call, now-since) })
	g.yield.maybe(g.inFlight.load().inFlight())
	return Permit{gate: g, start: granted, claim: got, pressed: pressed, waited: granted - since, due: due}, nil
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
		return <-w.ready, false // sent under the lock, so this does not block
	}
	now := g.now()
	r := g.roomLocked(g.inFlight.load(), now)
	why := WaitedTooLong
	if g.turns.AtBound(&w.Waiter, r) {
		why = OverShare // it waited for permits that its own tenant holds
	}
	g.turns.Remove(&w.Waiter, r)
	if leaves {
		g.counters.left++
	} else {
		refused = g.countWaiterLocked(w, why, now)
	}
	g.dispatchLocked(now) // the waiters behind it may want fewer permits
	return refused, leaves
}

// refuseWaiterLocked removes w from the queue and refuses it.
func (g *Gate) refuseWaiterLocked(w *waiter, why Reason, now time.Duration) {
	g.turns.Remove(&w.Waiter, g.roomLocked(g.inFlight.load(), now))
	w.ready <- g.countWaiterLocked(w, why, now)
}

// countWaited counts a call that was admitted after waiting, and reports it to the hooks.
func (g *Gate) countWaited(ctx context.Context, c Call, wait time.Duration) {
	g.mu.Lock()
	g.counters.wait(wait)
	hooks := g.hooksLocked()
	g.mu.Unlock()
	hooks.waited(ctx, c, wait)
}

func (g *Gate) hooks() hookSet {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hooksLocked()
}
