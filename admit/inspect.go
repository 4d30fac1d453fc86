package admit

import (
	"cmp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// An Inspection is a detailed snapshot of a gate, for a page that people read.
type Inspection struct {
	// Stats are the numbers of the gate.
	Stats Stats
	// Oldest is how long the oldest waiter of each Class has waited. It is 0 for a class
	// without waiters.
	Oldest [MaxClasses]time.Duration
	// Held is the number of permits that calls of each Class hold. Unless Stats.Held counts
	// all calls, it leaves out calls that were admitted before the first Inspect.
	Held [MaxClasses]int
	// LastEnd is when the gate last saw calls end, to about 10 ms. It is zero if no call has
	// ended.
	LastEnd time.Time
	// Tenants are the tenants that hold and want the most permits, the busiest first. At
	// most 1,024 of the tenants without waiters are looked at, other ones in the next look.
	Tenants []TenantState
	// Waiting are the calls that have waited longest, and Running the calls that have run
	// longest. The oldest call is first. Running begins with the calls that were admitted
	// after the first Inspect. Unlisted is the number of permits in use that are not listed.
	Waiting, Running []CallState
	Unlisted         int
	// Decisions are the last changes of the limit, Refusals a sample of the last refusals,
	// and History the last five minutes. The newest is last.
	Decisions []Decision
	Refusals  []RefusedCall
	History   []Moment
}

// A TenantState is a tenant of a class with calls.
type TenantState struct {
	// Name is the tenant, cut off after 256 bytes.
	Name string
	// Class is the class of its calls.
	Class Class
	// Held is the number of permits that its calls hold, Waiting the number of its waiters.
	Held, Waiting int
}

// A CallState is a call that waits or runs.
type CallState struct {
	// Method and Tenant name the call and its tenant, cut off after 256 bytes.
	Method, Tenant string
	// Class is the class, and Cost the number of permits that the call takes.
	Class Class
	Cost  int
	// Since is when the call began to wait, or got its permit.
	Since time.Time
	// Deadline is when its caller gives up. It is zero if there is no deadline.
	Deadline time.Time
}

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

// Inspect returns a snapshot with the calls and tenants of the gate, and the recent past. It
// takes the gate's lock many times, each time for about a microsecond, so its parts are not of
// exactly the same moment. Call it for a page, not for every call.
//
// For a minute after Inspect, every call takes the gate's lock, so that running calls can be
// listed. That costs some hundred nanoseconds for each call. Without Inspect it costs nothing.
func (g *Gate) Inspect() Inspection {
	if g.isZero() {
		return Inspection{Stats: g.Stats()}
	}
	g.looks.Lock()
	defer g.looks.Unlock()
	i := Inspection{Tenants: g.busiest()}
	runtime.Gosched() // A call that found the lock taken runs now. Otherwise it would wait for the whole look.
	i.Stats = g.Stats()
	g.beginLook(&i)
	i.Waiting = g.waitingCalls(&i.Stats)
	runtime.Gosched()
	i.Running, i.Unlisted = g.runningCalls()
	runtime.Gosched()
	i.Decisions, i.History, i.Refusals = g.lastDecisions(), g.lastMoments(), g.lastRefusals()
	return i
}

// beginLook lists running calls from now on, and reads the numbers that are no lists.
func (g *Gate) beginLook(i *Inspection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	g.watch.begin(now)
	g.useLockLocked()
	g.past.see(g, now)
	i.LastEnd = g.past.lastEnd(g.epoch)
	for c := range MaxClasses {
		i.Held[c] = max(g.turns.Held(c), g.watch.held[c])
		if w := g.turns.First(c); w != nil {
			i.Oldest[c] = now - w.Since
		}
	}
}

// restLocked releases the lock for a moment after every few entries of a look. The memory for
// the entries should be there before the lock is taken, because the allocator may take longer
// than the whole look.
func (g *Gate) restLocked(entries int) {
	if entries%lookBatch == 0 {
		g.mu.Unlock()
		if rested != nil {
			rested()
		}
		g.mu.Lock()
	}
}

// rested is called in each rest of a look. Only tests set it.
var rested func()

// busiest returns the busiest tenants.
func (g *Gate) busiest() (top []TenantState) {
	for _, l := range g.loads() {
		top = addTenant(top, TenantState{l.Tenant, Class(l.Class), l.Held, l.Waiting})
	}
	for i := range top {
		top[i].Name = brief(top[i].Name)
	}
	return top
}

// loads returns some tenants with calls, and the ones that want most.
func (g *Gate) loads() []turn.Load {
	all := make([]turn.Load, 0, mostLooked+shownTenants*MaxClasses)
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.turns.Loads() {
		if all = append(all, l); len(all) == mostLooked {
			break
		}
		g.restLocked(len(all))
	}
	for c := range MaxClasses {
		g.restLocked(0)
		for l := range g.turns.Heaviest(c, shownTenants) {
			all = append(all, l)
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

// waitingCalls returns the calls that have waited longest.
func (g *Gate) waitingCalls(s *Stats) []CallState {
	var all []CallState
	for c, n := range s.Waiting {
		if n > 0 {
			all = append(all, g.waitingOf(c, min(n, mostCalls))...)
		}
	}
	sortByAge(all)
	return briefly(all[:min(len(all), mostCalls)])
}

// waitingOf returns the calls of a class that have waited longest, most of them at most.
func (g *Gate) waitingOf(class, most int) []CallState {
	all := make([]CallState, 0, most)
	g.mu.Lock()
	defer g.mu.Unlock()
	for t := range g.turns.Oldest(class) {
		if all = append(all, g.stateOf(&waiterOf(t).call, t.Since, t.Deadline, t.Cost)); len(all) == most {
			break
		}
		g.restLocked(len(all))
	}
	return all
}

// runningCalls returns the calls that have run longest, and the number of permits in use that
// no listed call holds.
func (g *Gate) runningCalls() (all []CallState, unlisted int) {
	all, unlisted = g.listed(), g.inFlight.load().inFlight()
	for i := range all {
		unlisted -= all[i].Cost
	}
	sortByAge(all)
	return briefly(all), max(0, unlisted)
}

// listed returns the running calls that are known, the oldest first.
func (g *Gate) listed() []CallState {
	all := make([]CallState, 0, mostCalls)
	g.mu.Lock()
	defer g.mu.Unlock()
	for r := range g.watch.running() {
		if all = append(all, g.stateOf(&r.call, r.since, r.deadline, r.cost)); len(all) == mostCalls {
			break
		}
		g.restLocked(len(all))
	}
	return all
}

// sortByAge puts the oldest calls first.
func sortByAge(all []CallState) {
	slices.SortStableFunc(all, func(a, b CallState) int { return a.Since.Compare(b.Since) })
}

// stateOf describes a call, with names that are not cut off yet.
func (g *Gate) stateOf(c *Call, since, deadline time.Duration, cost int) CallState {
	s := CallState{Method: c.Method, Tenant: c.Tenant, Class: c.Class, Cost: cost, Since: g.epoch.Add(since)}
	if deadline > 0 {
		s.Deadline = g.epoch.Add(deadline)
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

// A Decision is a change of the limit.
type Decision struct {
	// At is when the limit changed, From and To are the limits before and after.
	At       time.Time
	From, To int
	// Explanation is the reason, and the measurements behind it.
	limit.Explanation
}
