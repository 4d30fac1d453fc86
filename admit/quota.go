package admit

import (
	"context"
	"sync"
	"time"
)

// A quotaState is the result of the quota check of a call.
type quotaState uint8

const (
	notAsked  quotaState = iota
	within               // the call may run
	wouldFail            // the call is over its quota, in a dry run, and counted as refused
)

// acquireWithin is Acquire for a gate with quotas.
func (g *Gate) acquireWithin(ctx context.Context, c Call, q *quotas) (permit Permit, err error) {
	spent, delay := q.take(c, time.Now())
	if delay > 0 {
		_, refusal, dry := g.overQuota(ctx, c, delay)
		switch {
		case refusal != nil:
			return Permit{}, refusal
		case !dry:
			return Permit{}, q.refusals.after(delay, q.gate)
		}
		c.quota = wouldFail
		return g.Acquire(ctx, c)
	}
	c.quota = within
	ran := false
	defer func() { q.settle(&spent, ran) }() // also after a Goexit in a hook, which frees the permit
	permit, err = g.Acquire(ctx, c)
	ran = err == nil
	return
}

// overQuota counts a call over its quota and returns the reason of its refusal. If the
// gate is draining, it returns that refusal instead, because another server may take the
// call. In a dry run the call is not refused.
func (g *Gate) overQuota(ctx context.Context, c Call, delay time.Duration) (why Reason, refusal *Refusal, dry bool) {
	g.mu.Lock()
	c.Class = g.cfg.classes.class(c.Class)
	hooks := g.hooksLocked()
	if g.draining {
		why, refusal = Draining, g.refusalLocked(ctx, c, Draining)
	} else {
		why, dry = OverQuota, g.cfg.dryRun
		g.countRefusedLocked(ctx, c, OverQuota, &Refusal{RetryAfter: delay})
	}
	g.mu.Unlock()
	hooks.refused(ctx, c, why, 0)
	return why, refusal, dry
}

// useQuotasLocked puts the configured quotas into effect.
func (g *Gate) useQuotasLocked() {
	if g.cfg.quotas.none() {
		g.quotas.Store(nil)
		return
	}
	g.quotas.Store(newQuotas(&g.cfg, g.quotas.Load(), time.Now()))
}

// quotas holds the buckets of a gate. It is safe for concurrent use.
type quotas struct {
	gate     string // the gate's name
	refusals quotaRefusals

	mu      *sync.Mutex // guards the fields below; the quotas before an Update share it
	known   [MaxClasses]bool
	classes [MaxClasses]*bucket // nil if the class is not bounded
	each    Rate                // of tenants without a rate of their own; zero if not bounded
	named   map[string]*bucket  // tenants with a rate of their own
	others  *tenantTable        // the other tenants; nil if each is zero
}

// newQuotas returns quotas as configured. It takes over the usage of the quotas before,
// which may be nil.
func newQuotas(c *config, before *quotas, now time.Time) *quotas {
	q := &quotas{gate: c.name, known: c.classes.known, each: c.quotas.Tenant, named: map[string]*bucket{}, mu: new(sync.Mutex)}
	if before == nil {
		before = &quotas{}
	} else {
		q.mu = before.mu
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	goOn := func(b *bucket, r Rate) *bucket {
		if b == nil {
			return newBucket(r)
		}
		b.become(r, now)
		return b
	}
	for class, r := range c.quotas.Classes {
		q.classes[class] = goOn(before.classes[class], r)
	}
	for key, r := range c.quotas.Tenants {
		b := before.named[key]
		if b == nil && before.others != nil {
			b = before.others.leave(key)
		}
		q.named[key] = goOn(b, r)
	}
	if q.each == (Rate{}) {
		return q
	}
	q.others = before.others
	if q.others == nil {
		q.others = newTenantTable()
	}
	q.others.become(q.each, c.quotas.MaxTenants, now)
	for key, b := range before.named {
		if q.named[key] == nil {
			q.others.adopt(key, b, now)
		}
	}
	return q
}

// A spending is the tokens that a call took, and their buckets.
type spending struct {
	from [2]*bucket
	n    [2]int
}

// take takes the tokens of a call. If they are not there, it takes none and returns the
// delay until they will be.
func (q *quotas) take(c Call, now time.Time) (s spending, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, delay = q.priceLocked(c, now)
	if delay > 0 {
		return spending{}, delay
	}
	for i, b := range s.from {
		if b != nil {
			b.take(s.n[i], now)
		}
	}
	return s, 0
}

// over reports whether a call is over its quota. It takes nothing.
func (q *quotas) over(c Call, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, delay := q.priceLocked(c, now)
	return delay > 0
}

// priceLocked returns the tokens that a call costs, and the delay until they are there.
func (q *quotas) priceLocked(c Call, now time.Time) (s spending, delay time.Duration) {
	class := c.Class
	if class >= MaxClasses || !q.known[class] {
		class = Background
	}
	s.from = [2]*bucket{q.classes[class], q.tenantLocked(c.Tenant, now)}
	for i, b := range s.from {
		if b != nil {
			s.n[i] = b.cost(c.Cost)
			delay = max(delay, b.missing(s.n[i], now))
		}
	}
	return s, delay
}

// tenantLocked returns the bucket of a tenant, or nil if the tenant is not bounded.
func (q *quotas) tenantLocked(key string, now time.Time) *bucket {
	if key == "" {
		return nil
	}
	if b := q.named[key]; b != nil || q.others == nil {
		return b
	}
	return q.others.bucket(key, now)
}

// settle ends the spending of a call. If the call did not run, its tokens go back.
func (q *quotas) settle(s *spending, ran bool) {
	var now time.Time
	if !ran {
		now = time.Now()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, b := range s.from {
		switch {
		case b == nil:
		case ran:
			b.ran(s.n[i])
		default:
			b.giveBack(s.n[i], now)
		}
	}
}

// tenants returns the number of tenants with a bucket of their own. It accepts nil.
func (q *quotas) tenants() int {
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.named)
	if q.others != nil {
		n += len(q.others.seats)
	}
	return n
}
