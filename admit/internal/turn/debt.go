package turn

import (
	"container/heap"
	"hash/maphash"
)

// owe notes that a waiter gets permits. Part is an equal part of the permits of the class. A
// tenant that gets more than that at once is in debt until the others got as much, and the
// permits that stayed idle for it. Otherwise a tenant that asks for ten permits at a time would
// get ten times as much as one that asks for one.
func (l *line) owe(w *Waiter, permits, part int, r Room) {
	t := w.tenant
	l.granted += int64(permits)
	for len(l.debts.tenants) > 0 && l.debts.tenants[0].until <= l.granted {
		free := heap.Pop(&l.debts).(*Tenant) //nolint:forcetypeassert // the heap holds nothing else
		free.indebted = false
		free.moved()
	}
	debt := l.wasted(w, r.Now)
	if t.held < part {
		debt += int64(max(0, t.held+permits-part)) * int64(l.active())
	}
	l.bill(t, debt, r.Limit)
}

// bill adds to the debt of a tenant with waiters. The debts of several calls together are at most
// progress times the limit, so that a tenant which took what no other wanted is not shut out for
// long.
func (l *line) bill(t *Tenant, permits int64, limit int) {
	if permits == 0 {
		return
	}
	debt := max(0, t.until-l.granted) + permits
	t.until = l.granted + min(debt, max(permits, progress*int64(limit)))
	if t.indebted {
		heap.Fix(&l.debts, t.index[byDebt])
	} else {
		t.indebted = true
		heap.Push(&l.debts, t)
	}
	t.moved()
}

// keys is the secret of the hashes of keys.
var keys = maphash.MakeSeed()

func (t *Tenant) hash() uint64 { return maphash.String(keys, t.key) }

// A debtors remembers the largest debts of tenants without calls, in bounded memory.
type debtors struct {
	all  [8]debtor
	last int64 // no debt in all ends later
}

type debtor struct {
	key   uint64 // hash of the tenant's key
	until int64  // as in Tenant
}

// put remembers the debt of a tenant that is forgotten.
func (d *debtors) put(t *Tenant) {
	if t.until <= t.line.granted {
		return
	}
	least := &d.all[0]
	for i := range d.all {
		if d.all[i].until < least.until {
			least = &d.all[i]
		}
	}
	if t.until > least.until {
		*least = debtor{t.hash(), t.until}
		d.last = max(d.last, t.until)
	}
}

// take returns what Tenant.until is for a tenant that comes.
func (d *debtors) take(t *Tenant) (until int64) {
	if d.last <= t.line.granted {
		return 0
	}
	key := t.hash()
	for i := range d.all {
		if d.all[i].key == key {
			until, d.all[i] = max(until, d.all[i].until), debtor{}
		}
	}
	return until
}
