package admit

import (
	"container/heap"
	"hash/maphash"
	"time"
)

// A tenantTable holds a bucket for each tenant that has used some of its burst. It drops
// a bucket only once it is full, because a new bucket is full too. If the table is full,
// the tenants without a seat share buckets by a secret hash.
type tenantTable struct {
	rate   Rate
	most   int // seats
	seats  map[string]*seat
	byFull fullOrder
	seed   maphash.Seed
	shared [sharedBuckets]*bucket // created when first used
}

const (
	sharedBuckets = 4096
	// glance bounds the seats that are examined for each new tenant. It is more than
	// one, so that the table shrinks when there are fewer tenants.
	glance = 4
	// seatKept is how long a full bucket keeps its seat while the table has room. A
	// tenant that calls often then costs no allocation.
	seatKept = 10 * time.Second
)

// A seat is a tenant's bucket in the table.
type seat struct {
	*bucket

	key   string
	index int // in byFull
	used  time.Time
	// free is when the bucket is full and unused, or an earlier time at which to compute
	// that again.
	free time.Time
}

func newTenantTable() *tenantTable {
	return &tenantTable{seats: map[string]*seat{}, seed: maphash.MakeSeed()}
}

// become changes the rate and the number of seats.
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

// bucket returns the bucket of a tenant, on a seat if there is one.
func (t *tenantTable) bucket(key string, now time.Time) *bucket {
	if s := t.seats[key]; s != nil {
		s.used = now
		return s.bucket
	}
	shared := &t.shared[maphash.String(t.seed, key)%sharedBuckets]
	t.dropFull(now)
	if len(t.seats) < t.most {
		b := t.sit(key, now)
		if *shared != nil { // this tenant may have used it
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

// leave removes a tenant's seat and returns its bucket, or nil if it had none.
func (t *tenantTable) leave(key string) *bucket {
	s := t.seats[key]
	if s == nil {
		return nil
	}
	delete(t.seats, key)
	heap.Remove(&t.byFull, s.index)
	return s.bucket
}

// adopt gives a seat to a tenant that had a rate of its own. Its usage carries over.
func (t *tenantTable) adopt(key string, b *bucket, now time.Time) {
	b.become(t.rate, now)
	if !b.full(now) && len(t.seats) < t.most {
		t.sit(key, now).like(b, now)
	}
}

// dropFull drops some seats with full buckets.
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

// fullOrder is a heap of seats, ordered by free.
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
