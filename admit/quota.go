package admit

import (
	"context"
	"sync"
	"time"
)

// acquireWithin is Acquire for a gate with quotas.
func (g *Gate) acquireWithin(ctx context.Context, c Call, q *quotas, p *Permit) (err error) {
	spent, delay := q.take(c, time.Now())
	if delay > 0 {
		if refusal := g.refuseOverQuota(ctx, c, q, delay); refusal != nil {
			return refusal
		}
		return g.acquireLocking(ctx, c, true, p)
	}
	ran := false
	defer func() { q.settle(&spent, ran) }() // also after a Goexit in a hook, which frees the permit
	err = g.acquire(ctx, c, p)
	ran = err == nil
	return err
}

// refuseOverQuota counts a call over its quota and returns its refusal. While the gate is draining,
// that is the reason, because another server may take the call. In a dry run it returns nil.
func (g *Gate) refuseOverQuota(ctx context.Context, c Call, q *quotas, delay time.Duration) (refusal *Refusal) {
	why := OverQuota
	g.mu.Lock()
	c.Class = g.cfg.classes.class(c.Class)
	if g.draining {
		why, refusal = Draining, g.record.refuse(ctx, c, Draining)
	} else {
		g.record.countRefused(ctx, c, OverQuota, delay)
		if !g.cfg.dryRun {
			refusal = q.refusals.after(delay, q.gate)
		}
	}
	g.mu.Unlock()
	g.hooks.refused(ctx, c, why, 0)
	return refusal
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
// which may be nil. If nothing is bounded, it returns nil.
func newQuotas(c *config, before *quotas, now time.Time) *quotas {
	if c.quotas.none() {
		return nil
	}
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
