package admit

import (
	"cmp"
	"slices"
	"strings"
	"time"

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
	// most 1,024 of the tenants without waiters are looked at.
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
	tenantBatch  = 64   // tenants that are looked at under one lock
	mostText     = 256  // bytes
)

// Inspect returns a snapshot with the calls and tenants of the gate, and the recent past. It
// takes the gate's lock several times, each time for some microseconds. Call it for a page,
// not for every call.
//
// For a minute after Inspect, every call takes the gate's lock, so that running calls can be
// listed. That costs some hundred nanoseconds for each call. Without Inspect it costs nothing.
func (g *Gate) Inspect() Inspection {
	if g.isZero() {
		return Inspection{Stats: g.Stats()}
	}
	i := Inspection{Tenants: g.busiest()}
	i.Stats = g.Stats()
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
	i.Waiting = g.waitingLocked()
	i.Running, i.Unlisted = g.runningLocked()
	i.Decisions = g.past.decisionsSince(g.epoch)
	i.History = g.past.moments(g.epoch)
	i.Refusals = g.refused.list(g.epoch)
	return i
}

// busiest returns the busiest tenants. It releases the lock between batches.
func (g *Gate) busiest() []TenantState {
	var top []TenantState
	add := func(t TenantState) {
		same := func(o TenantState) bool { return o.Class == t.Class && o.Name == t.Name }
		if i := slices.IndexFunc(top, same); i >= 0 {
			top[i] = t
			return
		}
		i, _ := slices.BinarySearchFunc(top, t, byWeight)
		if i < shownTenants {
			top = slices.Insert(top[:min(len(top), shownTenants-1)], i, t)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for l := range g.turns.Loads() {
		add(TenantState{l.Tenant, Class(l.Class), l.Held, l.Waiting})
		if n++; n == mostLooked {
			break
		}
		if n%tenantBatch == 0 {
			g.mu.Unlock() // calls may come between
			g.mu.Lock()
		}
	}
	for c := range MaxClasses {
		for l := range g.turns.Heaviest(c, shownTenants) {
			add(TenantState{l.Tenant, Class(l.Class), l.Held, l.Waiting})
		}
	}
	for i := range top {
		top[i].Name = brief(top[i].Name)
	}
	return top
}

// byWeight orders tenants, the busiest first.
func byWeight(a, b TenantState) int {
	return cmp.Or(cmp.Compare(b.Held+b.Waiting, a.Held+a.Waiting), cmp.Compare(b.Held, a.Held), cmp.Compare(a.Name, b.Name))
}

// waitingLocked returns the calls that have waited longest.
func (g *Gate) waitingLocked() []CallState {
	var all []CallState
	for c := range MaxClasses {
		n := 0
		for t := range g.turns.Oldest(c) {
			w := waiterOf(t)
			all = append(all, g.stateOf(w.call, w.Since, w.Deadline, w.Cost))
			if n++; n == mostCalls {
				break
			}
		}
	}
	slices.SortStableFunc(all, func(a, b CallState) int { return a.Since.Compare(b.Since) })
	return all[:min(len(all), mostCalls)]
}

// runningLocked returns the calls that have run longest, and the number of permits in use
// that no listed call holds.
func (g *Gate) runningLocked() (all []CallState, unlisted int) {
	unlisted = g.inFlight.load().inFlight()
	for r := g.watch.oldest; r != nil && len(all) < mostCalls; r = r.newer {
		all = append(all, g.stateOf(r.call, r.since, r.deadline, r.cost))
		unlisted -= r.cost
	}
	return all, max(0, unlisted)
}

func (g *Gate) stateOf(c Call, since, deadline time.Duration, cost int) CallState {
	s := CallState{
		Method: brief(c.Method), Tenant: brief(c.Tenant), Class: c.Class, Cost: cost,
		Since: g.epoch.Add(since),
	}
	if deadline > 0 {
		s.Deadline = g.epoch.Add(deadline)
	}
	return s
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
