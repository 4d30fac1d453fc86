package admit

import "time"

// Stats is a snapshot of a gate. It has the current state, and counters since the gate
// was created.
// Fields of the current state are of type int or are flags. Counters never decrease.
type Stats struct {
	// Name is the gate's name.
	Name string
	// Limit is the number of permits, InFlight the number of permits in use. A call uses
	// one permit unless it has a Cost. InFlight exceeds Limit for a while after the limit
	// was lowered, in a dry run, and by Beyond.
	Limit, InFlight int
	// Leaving is the part of InFlight that calls hold after [Permit.Finish], because their
	// responses have not left. Beyond is the part of Leaving that does not count against
	// Limit, since the limit adapts.
	Leaving, Beyond int
	// MinLimit is the smallest limit that the algorithm may choose, or 0 if it does not say,
	// as a fixed limit does not.
	MinLimit int
	// Queue is the number of waiters, QueueCapacity the most that may wait. With Block
	// there may be more.
	Queue, QueueCapacity int
	// MaxWait bounds how long a call may wait. It is 0 without a bound, and without a queue.
	MaxWait time.Duration
	// Standing reports for each Class whether the queue stands, as QueueConfig explains.
	Standing [MaxClasses]bool
	// Classes are the names of the classes, by Class. The name of a class that is not
	// configured is empty.
	Classes [MaxClasses]string
	// Waiting is the number of waiters of each Class, Held the number of permits that its
	// calls hold. Held counts all calls if a class has a Share or a Max, and otherwise
	// only the calls of tenants.
	Waiting, Held [MaxClasses]int
	// Tenants is the number of tenants with calls that run or wait.
	Tenants int
	// Ready is the number of calls that go on after [Permit.Ready]. MaxOpen is the bound of
	// [WithMaxOpen], or 0 for no bound.
	Ready, MaxOpen int
	// QuotaTenants is the number of tenants that have used up a part of their quota.
	QuotaTenants int
	// Draining reports whether Drain was called, DryRun whether the gate is in a dry run.
	Draining, DryRun bool

	// Ended counts the calls that ran, by Outcome.
	Ended [NumOutcomes]uint64
	// Refused counts the refused calls, by Class and Reason. In a dry run it counts the
	// calls that would have been refused.
	Refused [MaxClasses][NumReasons]uint64
	// Waited counts the calls that were admitted after waiting, WaitSeconds the time that
	// they waited, in total.
	Waited      uint64
	WaitSeconds float64
	// Left counts the calls that left with their context, before they were admitted.
	Left uint64
	// RunningSeconds is the total time that the ended calls ran.
	RunningSeconds float64
	// SendStalls counts the streams that were ended because their clients took no messages;
	// see interceptors.StreamRule.
	SendStalls uint64
	// Panics counts the panics of hooks and of the algorithm.
	Panics uint64
}

// Utilization is InFlight without Beyond, divided by Limit: 1 is full. It is 0 without a limit.
func (s Stats) Utilization() float64 {
	if s.Limit == 0 {
		return 0
	}
	return float64(s.InFlight-s.Beyond) / float64(s.Limit)
}

// Open is the number of open calls, as [WithMaxOpen] counts them: the permits in use, the
// waiters, and the calls after [Permit.Ready].
func (s Stats) Open() int { return s.InFlight + s.Queue + s.Ready }

// Stats returns a consistent snapshot. It holds the gate's lock for some microseconds.
// Call it for a scrape or a page, not for every call.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isZero() {
		return Stats{Draining: g.draining}
	}
	g.record.gather()
	now, q := g.inFlight.load(), g.permits.queue
	leaving, beyond := g.open.finished()
	s := Stats{
		Name:          g.cfg.name,
		Limit:         now.limit(),
		InFlight:      now.inFlight() + beyond,
		Leaving:       leaving,
		Beyond:        beyond,
		MinLimit:      g.cfg.floor,
		Queue:         q.Len(),
		QueueCapacity: g.cfg.places(),
		MaxWait:       g.cfg.longestWait(),
		Classes:       g.cfg.classes.names(),
		Tenants:       q.Tenants(),
		Ready:         g.open.readied(),
		MaxOpen:       g.cfg.maxOpen,
		QuotaTenants:  g.quotas.Load().tenants(),
		Draining:      g.draining,
		DryRun:        g.cfg.dryRun,
		Panics:        g.hooks.panics.Load(),
	}
	for i := range MaxClasses {
		s.Waiting[i], s.Held[i], s.Standing[i] = q.Waiting(i), q.Held(i), q.Standing(i)
	}
	s.SendStalls = g.stalls.Load()
	g.record.counters.writeTo(&s)
	return s
}
