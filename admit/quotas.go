package admit

import (
	"container/heap"
	"hash/maphash"
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

// A tenantTable holds a bucket for each tenant that has not all of its burst. Only a
// full bucket is dropped, since a new one is the same. Tenants for which there is no seat
// share buckets by a hash that nobody outside knows.
type tenantTable struct {
	rate   Rate
	most   int
	seats  map[string]*seat
	byFull fullOrder
	seed   maphash.Seed
	shared [sharedBuckets]*bucket
}

const (
	sharedBuckets = 4096
	// glance is how many seats a newcomer looks at, at most, to find free ones: more
	// than one, so that the table shrinks when tenants become fewer.
	glance = 4
	// seatKept is how long a seat is kept that is not needed, unless others need it: a
	// tenant that calls often costs no allocation.
	seatKept = 10 * time.Second
)

type seat struct {
	*bucket

	key   string
	index int
	used  time.Time
	// free is when the bucket is full and not used any more, or earlier: it is looked at
	// again then.
	free time.Time
}

func newTenantTable() *tenantTable {
	return &tenantTable{seats: map[string]*seat{}, seed: maphash.MakeSeed()}
}

func (t *tenantTable) become(r Rate, most int, now time.Time) {
	t.most = most
	if t.most == 0 {
		t.most = defaultTenants
	}
	if t.rate == r {
		return
	}
	t.rate = r
	for _, s := range t.byFull {
		s.become(r, now)
		s.free = s.fullAt(now)
	}
	heap.Init(&t.byFull)
	for _, b := range &t.shared {
		if b != nil {
			b.become(r, now)
		}
	}
}

// bucket returns a tenant's bucket.
func (t *tenantTable) bucket(key string, now time.Time) *bucket {
	if s := t.seats[key]; s != nil {
		s.used = now
		return s.bucket
	}
	shared := &t.shared[maphash.String(t.seed, key)%sharedBuckets]
	t.dropFull(now)
	if len(t.seats) < t.most {
		b := t.sit(key, now)
		if *shared != nil { // it may be this tenant that has used it
			b.like(*shared, now)
		}
		return b
	}
	if *shared == nil {
		*shared = newBucket(t.rate)
	}
	return *shared
}

// sit gives a tenant a seat.
func (t *tenantTable) sit(key string, now time.Time) *bucket {
	s := &seat{bucket: newBucket(t.rate), key: key, used: now, free: now}
	t.seats[key] = s
	heap.Push(&t.byFull, s)
	return s.bucket
}

// leave takes a tenant's seat and returns its bucket, nil if it had none.
func (t *tenantTable) leave(key string) *bucket {
	s := t.seats[key]
	if s == nil {
		return nil
	}
	delete(t.seats, key)
	heap.Remove(&t.byFull, s.index)
	return s.bucket
}

// adopt gives a tenant that had a rate of its own a seat, with what it has used.
func (t *tenantTable) adopt(key string, b *bucket, now time.Time) {
	b.become(t.rate, now)
	if !b.full(now) && len(t.seats) < t.most {
		t.sit(key, now).like(b, now)
	}
}

// dropFull drops seats whose buckets are full.
func (t *tenantTable) dropFull(now time.Time) {
	until := now.Add(-seatKept)
	if len(t.seats) >= t.most {
		until = now
	}
	for range glance {
		if len(t.byFull) == 0 || t.byFull[0].free.After(until) {
			return
		}
		s := t.byFull[0]
		if s.free = s.used; !s.full(now) {
			s.free = s.fullAt(now)
		}
		if s.free.After(until) {
			heap.Fix(&t.byFull, 0)
			continue
		}
		delete(t.seats, s.key)
		heap.Pop(&t.byFull)
	}
}

// fullOrder is a heap of seats by when they are free.
type fullOrder []*seat

// Len implements heap.Interface.
func (o fullOrder) Len() int { return len(o) }

// Less implements heap.Interface.
func (o fullOrder) Less(i, j int) bool { return o[i].free.Before(o[j].free) }

// Swap implements heap.Interface.
func (o fullOrder) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i, j
}

// Push implements heap.Interface.
func (o *fullOrder) Push(x any) {
	s := x.(*seat) //nolint:forcetypeassert // the heap holds nothing else
	s.index = len(*o)
	*o = append(*o, s)
}

// Pop implements heap.Interface.
func (o *fullOrder) Pop() any {
	last := len(*o) - 1
	s := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return s
}
