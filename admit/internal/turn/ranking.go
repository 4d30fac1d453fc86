package turn

// A ranking is a heap of the tenants with waiters, in one of three orders. It implements
// heap.Interface.
type ranking struct {
	tenants []*Tenant
	by      int
}

const (
	byNeed   = iota // by debt, fewest permits held, oldest waiter
	byWeight        // by most permits held and wanted, oldest waiter
	byDebt          // by the end of the debt

	rankings = 3
)

// Len implements heap.Interface.
func (r *ranking) Len() int { return len(r.tenants) }

// Less implements heap.Interface.
func (r *ranking) Less(i, j int) bool { return r.before(r.tenants[i], r.tenants[j]) }

// compare orders the tenants at two places.
func (r *ranking) compare(i, j int) int {
	if r.Less(i, j) {
		return -1
	}
	return 1
}

func (r *ranking) before(a, b *Tenant) bool {
	switch {
	case r.by == byNeed && a.indebted != b.indebted:
		return b.indebted
	case (r.by == byDebt || r.by == byNeed && a.indebted) && a.until != b.until:
		return a.until < b.until
	case r.by == byNeed && !a.indebted && a.held != b.held:
		return a.held < b.held
	case r.by == byWeight && a.weight() != b.weight():
		return a.weight() > b.weight()
	}
	return a.calls.first.seq < b.calls.first.seq
}

// Swap implements heap.Interface.
func (r *ranking) Swap(i, j int) {
	t := r.tenants
	t[i], t[j] = t[j], t[i]
	t[i].index[r.by], t[j].index[r.by] = i, j
}

// Push implements heap.Interface.
func (r *ranking) Push(x any) {
	t := x.(*Tenant) //nolint:forcetypeassert // the heap holds nothing else
	t.index[r.by] = len(r.tenants)
	r.tenants = append(r.tenants, t)
}

// Pop implements heap.Interface.
func (r *ranking) Pop() any {
	last := len(r.tenants) - 1
	t := r.tenants[last]
	r.tenants[last] = nil
	r.tenants = r.tenants[:last]
	return t
}
