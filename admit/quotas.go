package admit

import (
	"sync"
	"time"
)

// quotas are the buckets of a gate.
type quotas struct {
	gate    string // its name
	known   [MaxClasses]bool
	classes [MaxClasses]*bucket // nil: not bounded

	each   Rate               // of tenants without one of their own; zero: not bounded
	named  map[string]*bucket // of those with one
	others *tenantTable       // of all the rest; nil if each is zero

	refusals quotaRefusals

	mu *sync.Mutex // guards the buckets; shared with the quotas that these replaced
}

// newQuotas returns quotas as configured that go on from those of before, if there were
// any.
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

// A spending is what a call took, and from where.
type spending struct {
	from [2]*bucket
	n    [2]int
}

// take takes what a call costs, or nothing if that is not there: then the call has to
// wait for so long.
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

// over reports whether a call is over its quota, and takes nothing.
func (q *quotas) over(c Call, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, delay := q.priceLocked(c, now)
	return delay > 0
}

func (q *quotas) priceLocked(c Call, now time.Time) (s spending, delay time.Duration) {
	class := c.Class
	if class >= MaxClasses || !q.known[class] {
		class = Background
	}
	s.from = [2]*bucket{q.classes[class], q.tenant(c.Tenant, now)}
	for i, b := range s.from {
		if b != nil {
			s.n[i] = b.cost(c.Cost)
			delay = max(delay, b.missing(s.n[i], now))
		}
	}
	return s, delay
}

func (q *quotas) tenant(key string, now time.Time) *bucket {
	if key == "" {
		return nil
	}
	if b := q.named[key]; b != nil || q.others == nil {
		return b
	}
	return q.others.bucket(key, now)
}

// settle says what has become of a call. If it did not run it gets back what it took.
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

// tenants returns how many tenants are told apart now.
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
