package admit

import (
	"runtime"
	"time"
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
	l := look{mu: &g.mu, clock: &g.clock, queue: g.permits.queue, record: &g.record}
	i := Inspection{Tenants: l.busiest()}
	runtime.Gosched() // A call that found the lock taken runs now. Otherwise it would wait for the whole look.
	i.Stats = g.Stats()
	g.beginLook(&i)
	i.Waiting = l.waiting(&i.Stats)
	runtime.Gosched()
	i.Running, i.Unlisted = l.running(g.InFlight)
	runtime.Gosched()
	i.Decisions, i.History, i.Refusals = l.decisions(), l.moments(), l.refusals()
	return i
}

// beginLook lists running calls from now on, and reads the numbers that are no lists.
func (g *Gate) beginLook(i *Inspection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.now()
	g.record.running.begin(now)
	g.useLockLocked()
	g.record.history.see(&g.record, now)
	i.LastEnd = g.record.history.lastEnd(&g.clock)
	for c := range MaxClasses {
		i.Held[c] = max(g.permits.queue.Held(c), g.record.running.held[c])
		if w := g.permits.queue.First(c); w != nil {
			i.Oldest[c] = now - w.Since
		}
	}
}
