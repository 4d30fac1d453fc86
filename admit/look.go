package admit

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// The bounds of an Inspection.
const (
	shownTenants = 10
	mostCalls    = 100
	mostLooked   = 1024 // tenants without waiters
	mostText     = 256  // bytes
	// lookBatch is the number of entries that are copied under one lock. A call that comes
	// meanwhile waits for about a microsecond.
	lookBatch = 8
)

// A look reads the lists of a gate. It takes the gate's lock for a few entries at a time.
type look struct {
	mu     *sync.Mutex // the gate's lock
	clock  *clock
	queue  *turn.Queue
	record *recorder
}

// restLocked releases the lock for a moment after every few entries of a look. The memory for
// the entries should be there before the lock is taken, because the allocator may take longer
// than the whole look.
func (l *look) restLocked(entries int) {
	if entries%lookBatch == 0 {
		l.mu.Unlock()
		if rested != nil {
			rested()
		}
		l.mu.Lock()
	}
}

// rested is called in each rest of a look. Only tests set it.
var rested func()

// lastOf copies a ring of a size, the oldest value first. ring returns the ring and the number of
// values so far, with the lock held.
func lastOf[T any](l *look, size int, ring func() (values []T, count int)) []T {
	all := make([]T, 0, size)
	l.mu.Lock()
	defer l.mu.Unlock()
	_, end := ring()
	for n := 0; ; n++ {
		values, count := ring()
		n = max(n, count-size) // the older ones are gone
		if n >= end {
			return all
		}
		all = append(all, values[n%size])
		l.restLocked(len(all))
	}
}

// busiest returns the busiest tenants.
func (l *look) busiest() (top []TenantState) {
	for _, t := range l.loads() {
		top = addTenant(top, TenantState{t.Tenant, Class(t.Class), t.Held, t.Waiting})
	}
	for i := range top {
		top[i].Name = brief(top[i].Name)
	}
	return top
}

// loads returns some tenants with calls, and the ones that want most.
func (l *look) loads() []turn.Load {
	all := make([]turn.Load, 0, mostLooked+shownTenants*MaxClasses)
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.queue.Loads() {
		if all = append(all, t); len(all) == mostLooked {
			break
		}
		l.restLocked(len(all))
	}
	for c := range MaxClasses {
		l.restLocked(0)
		for t := range l.queue.Heaviest(c, shownTenants) {
			all = append(all, t)
		}
	}
	return all
}

// addTenant adds a tenant to the busiest ones.
func addTenant(top []TenantState, t TenantState) []TenantState {
	same := func(o TenantState) bool { return o.Class == t.Class && o.Name == t.Name }
	if i := slices.IndexFunc(top, same); i >= 0 {
		top[i] = t
		return top
	}
	i, _ := slices.BinarySearchFunc(top, t, byWeight)
	if i < shownTenants {
		top = slices.Insert(top[:min(len(top), shownTenants-1)], i, t)
	}
	return top
}

// byWeight orders tenants, the busiest first.
func byWeight(a, b TenantState) int {
	return cmp.Or(cmp.Compare(b.Held+b.Waiting, a.Held+a.Waiting), cmp.Compare(b.Held, a.Held), cmp.Compare(a.Name, b.Name))
}

// waiting returns the calls that have waited longest.
func (l *look) waiting(s *Stats) []CallState {
	var all []CallState
	for c, n := range s.Waiting {
		if n > 0 {
			all = append(all, l.waitingOf(c, min(n, mostCalls))...)
		}
	}
	sortByAge(all)
	return briefly(all[:min(len(all), mostCalls)])
}

// waitingOf returns the calls of a class that have waited longest, most of them at most.
func (l *look) waitingOf(class, most int) []CallState {
	all := make([]CallState, 0, most)
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.queue.Oldest(class) {
		if all = append(all, l.stateOf(&waiterOf(t).call, t.Since, t.Deadline, t.Cost)); len(all) == most {
			break
		}
		l.restLocked(len(all))
	}
	return all
}

// running returns the calls that have run longest, and the number of permits in use that
// no listed call holds.
func (l *look) running(inUse func() int) (all []CallState, unlisted int) {
	all = l.listed()
	unlisted = inUse() // after the list, or calls that began meanwhile would hide others
	for i := range all {
		unlisted -= all[i].Cost
	}
	sortByAge(all)
	return briefly(all), max(0, unlisted)
}

// listed returns the running calls that are known, the oldest first.
func (l *look) listed() []CallState {
	all := make([]CallState, 0, mostCalls)
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.record.running.all() {
		if all = append(all, l.stateOf(&r.call, r.since, r.deadline, r.cost)); len(all) == mostCalls {
			break
		}
		l.restLocked(len(all))
	}
	return all
}

// sortByAge puts the oldest calls first.
func sortByAge(all []CallState) {
	slices.SortStableFunc(all, func(a, b CallState) int { return a.Since.Compare(b.Since) })
}

// stateOf describes a call, with names that are not cut off yet.
func (l *look) stateOf(c *Call, since, deadline time.Duration, cost int) CallState {
	s := CallState{Method: c.Method, Tenant: c.Tenant, Class: c.Class, Cost: cost, Since: l.clock.date(since)}
	if deadline > 0 {
		s.Deadline = l.clock.date(deadline)
	}
	return s
}

// briefly cuts off the names of calls.
func briefly(all []CallState) []CallState {
	for i := range all {
		all[i].Method, all[i].Tenant = brief(all[i].Method), brief(all[i].Tenant)
	}
	return all
}

// brief cuts a text off. It copies the text, so that a long one is not kept.
func brief(s string) string {
	if len(s) <= mostText {
		return s
	}
	return strings.Clone(s[:mostText])
}
