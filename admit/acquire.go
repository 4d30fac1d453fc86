package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// Acquire takes a permit for a call. If none is free, it blocks until the call is
// admitted or refused, or until ctx ends. It refuses a call without blocking if the call
// cannot be served before its deadline, or if it finds no place in the queue.
// Waiters are served by class. Within a class, the tenant that holds the fewest permits is
// first, and then the oldest waiter. See [QueueConfig].
//
// If ctx ended first, the error is ctx's own, unchanged. Otherwise it is a *[Refusal].
// Release the permit exactly once, in a defer:
//
//	permit, err := gate.Acquire(ctx, admit.Call{})
//	if err != nil {
//		return err
//	}
//	outcome := admit.Ignored
//	defer func() { permit.Release(outcome) }()
func (g *Gate) Acquire(ctx context.Context, c Call) (permit Permit, err error) {
	if err = ctx.Err(); err != nil {
		return Permit{}, g.leave(ctx, c, 0, err)
	}
	if s := g.shedder.Load(); s != nil {
		refusal, would := g.shed(ctx, s, c)
		switch {
		case refusal != nil:
			return Permit{}, refusal
		case would: // and no quota counts it once more
			err = g.acquireLocking(ctx, c, true, &permit)
			return
		}
	}
	if q := g.quotas.Load(); q != nil {
		err = g.acquireWithin(ctx, c, q, &permit)
		return
	}
	err = g.acquire(ctx, c, &permit)
	return
}

// The functions below fill in the permit, because copies of it would cost more than all they do.

// acquire is Acquire for a call that neither pressure nor a quota refuses.
func (g *Gate) acquire(ctx context.Context, c Call, p *Permit) error {
	if c.Cost <= 1 && c.Tenant == "" {
		if n, ok := g.inFlight.takeFree(); ok {
			p.gate, p.start = g, g.clock.now()
			p.claim.cost, p.claim.class, p.claim.begun = 1, c.Class, g.record.begin(n)
			g.yield.maybe(n)
			return nil
		}
	}
	return g.acquireLocking(ctx, c, false, p)
}

// An arrival is a call that asks for a permit.
type arrival struct {
	ctx     context.Context
	call    Call      // with a class of the gate
	asks    turn.Call // the same for package turn
	at      time.Duration
	pressed bool // it finds no permit free
	counted bool // as refused, in a dry run
}

// acquireLocking is Acquire under the lock. It tries to refuse before it reads the clock,
// because a refusal must be cheap.
func (g *Gate) acquireLocking(ctx context.Context, c Call, counted bool, p *Permit) error {
	if g.isZero() {
		return errZeroGate
	}
	g.mu.Lock()
	a := g.arriveLocked(ctx, c)
	a.counted = counted
	if why, refuse := g.refuseAllLocked(); refuse {
		return g.refuseAndUnlock(&a, why)
	}
	s := g.inFlight.load()
	full := s.inFlight()+a.asks.Cost > s.limit()
	if g.open.tooMany(g.cfg.maxOpen, &g.permits) {
		if g.cfg.dryRun {
			a.at, a.pressed = g.clock.now(), full
			return g.passAndUnlock(&a, TooManyOpen, true, p)
		}
		return g.refuseAndUnlock(&a, TooManyOpen)
	}
	if full && !g.permits.queue.Counted() && !g.cfg.dryRun {
		if why, shut := g.permits.queue.Shut(a.asks, s.limit()); shut {
			g.record.window.press(true)
			return g.refuseAndUnlock(&a, reasonOf[why])
		}
	}
	a.at = g.clock.now()
	if got, ok := g.permits.claim(a.asks, a.at); ok {
		g.enterLocked(&a, &got)
		n := g.InFlight()
		g.mu.Unlock()
		g.yield.maybe(n)
		p.gate, p.start, p.claim = g, a.at, got
		return nil
	}
	a.pressed = g.permits.short(a.asks)
	g.record.window.press(a.pressed)
	if g.cfg.dryRun {
		return g.passAndUnlock(&a, QueueFull, g.permits.queue.FullOf(a.asks, g.permits.roomNow(a.at)), p)
	}
	w, why := g.queueLocked(&a)
	if w == nil {
		return g.refuseAndUnlock(&a, why)
	}
	patience := g.cfg.maxWait()
	g.mu.Unlock()
	return g.wait(ctx, w, patience, p)
}

// arriveLocked gives a call a class of the gate, and a cost that it can have.
func (g *Gate) arriveLocked(ctx context.Context, c Call) arrival {
	c.Class = g.cfg.classes.class(c.Class)
	return arrival{
		ctx: ctx, call: c,
		asks: turn.Call{Class: int(c.Class), Tenant: c.Tenant, Cost: min(max(c.Cost, 1), g.Limit())},
	}
}

// refuseAllLocked reports whether the gate refuses every call now, and why.
func (g *Gate) refuseAllLocked() (why Reason, refuse bool) {
	if g.draining {
		return Draining, true
	}
	if g.cfg.refuseIf != nil && !g.cfg.dryRun {
		return g.cfg.refuseIf()
	}
	return 0, false
}

// refuseAndUnlock refuses a call that has not waited.
func (g *Gate) refuseAndUnlock(a *arrival, why Reason) error {
	refusal := g.record.refuse(a.ctx, a.call, why)
	g.mu.Unlock()
	g.hooks.refused(a.ctx, a.call, why, 0)
	return refusal
}

// enterLocked notes that a call runs which has not waited.
func (g *Gate) enterLocked(a *arrival, got *claim) {
	var deadline time.Duration
	if g.record.running.on { // which alone wants it
		deadline = g.clock.deadlineOf(a.ctx)
	}
	g.record.enter(got, a.call, a.at, deadline)
}

// passAndUnlock admits a call in a dry run that would have been refused, or would have waited. It
// counts that.
func (g *Gate) passAndUnlock(a *arrival, why Reason, refused bool, p *Permit) error {
	got := g.permits.claimBeyond(a.asks, a.at)
	g.enterLocked(a, &got)
	if refused && !a.counted {
		g.record.countRefused(a.ctx, a.call, why, 0)
	}
	g.mu.Unlock()
	g.holding(got, func() {
		switch {
		case a.counted:
		case refused:
			g.hooks.refused(a.ctx, a.call, why, 0)
		default:
			g.countWaited(a.ctx, a.call, 0)
		}
	})
	p.gate, p.start, p.claim, p.pressed = g, a.at, got, a.pressed
	return nil
}

// leave counts a call that leaves with its context, reports it to the hooks, and returns
// err.
func (g *Gate) leave(ctx context.Context, c Call, wait time.Duration, err error) error {
	g.mu.Lock()
	c.Class = g.cfg.classes.class(c.Class)
	g.record.counters.left++
	g.mu.Unlock()
	g.hooks.left(ctx, c, wait, err)
	return err
}

// holding runs tell for a call that holds permits. If a hook ends the goroutine with
// runtime.Goexit, the permits go to the next waiter.
func (g *Gate) holding(c claim, tell func()) {
	told := false
	defer func() {
		if !told {
			g.giveBack(c, g.clock.now())
		}
	}()
	tell()
	told = true
}
