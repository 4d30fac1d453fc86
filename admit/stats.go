package admit

import "time"

// totals are counted since the gate was made. The gate's lock guards them.
type totals struct {
	tally
	waited   uint64
	waitTime span
	left     uint64
	refused  [MaxClasses][reasons]uint64
}

// Stats is what a gate does now and has done since it was made.
type Stats struct {
	// Name is the gate's name.
	Name string
	// Limit is how many permits there are; InFlight how many are in use, one for
	// each call that runs unless calls cost more. InFlight is above Limit for a
	// while after the limit was lowered, and in a dry run.
	Limit, InFlight int
	// Queue is how many calls wait, QueueCapacity how many may at most. With Block
	// more may wait than the capacity says.
	Queue, QueueCapacity int
	// Standing reports for which Class the queue stands: of its calls only few may
	// wait then. See QueueConfig.
	Standing [MaxClasses]bool
	// Classes are the names of the classes, by Class; empty for those that are
	// not configured.
	Classes [MaxClasses]string
	// Waiting is how many calls of each Class wait. Held is how many permits the
	// calls of each have, as far as that is counted: in a gate in which a class
	// has a share or a bound, and of calls that have a tenant.
	Waiting, Held [MaxClasses]int
	// Tenants is how many tenants have calls that run or wait.
	Tenants int
	// Ready is how many calls go on that gave their permits back with Permit.Ready. MaxOpen
	// is how many calls may be open, 0 if any number.
	Ready, MaxOpen int
	// QuotaTenants is how many tenants have not all of their quota.
	QuotaTenants int
	// Draining reports whether Drain was called, DryRun whether nothing is refused.
	Draining, DryRun bool

	// Ended counts the calls that ran, by Outcome.
	Ended [outcomes]uint64
	// Refused counts the calls that were refused, by Class and Reason; in a dry
	// run those that would have been.
	Refused [MaxClasses][reasons]uint64
	// Waited counts the calls that waited and were let in, WaitSeconds how long
	// they waited together.
	Waited      uint64
	WaitSeconds float64
	// Left counts the calls whose context ended before their turn.
	Left uint64
	// RunningSeconds is the time that all calls that ended have run, together.
	RunningSeconds float64
	// Panics counts the panics of hooks and of the algorithm.
	Panics uint64
}

// Utilization is the share of the limit that is in use: 1 is full.
func (s Stats) Utilization() float64 {
	if s.Limit == 0 {
		return 0
	}
	return float64(s.InFlight) / float64(s.Limit)
}

// Open is how many calls are open: those that run with a permit, wait, or have given
// theirs back. A call that costs more than one permit counts for what it costs.
func (s Stats) Open() int { return s.InFlight + s.Queue + s.Ready }

// Stats returns a consistent snapshot. It takes the gate's lock for a moment;
// it is meant for scrapes and pages, not for every call.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shards == nil { // a zero Gate
		return Stats{Draining: g.draining}
	}
	g.gatherLocked()
	s := g.load()
	var waiting, held [MaxClasses]int
	var standing [MaxClasses]bool
	for i := range MaxClasses {
		waiting[i], held[i], standing[i] = g.turns.Waiting(i), g.turns.Held(i), g.turns.Standing(i)
	}
	return Stats{
		Name:           g.cfg.name,
		Limit:          s.limit(),
		InFlight:       s.inFlight(),
		Queue:          g.turns.Len(),
		QueueCapacity:  g.cfg.places(),
		Standing:       standing,
		Classes:        g.cfg.classes.names(),
		Waiting:        waiting,
		Held:           held,
		Tenants:        g.turns.Tenants(),
		Ready:          g.readyCalls(),
		MaxOpen:        g.cfg.maxOpen,
		QuotaTenants:   g.quotas.Load().tenants(),
		Draining:       g.draining,
		DryRun:         g.cfg.dryRun,
		Ended:          g.totals.ended,
		Refused:        g.totals.refused,
		Waited:         g.totals.waited,
		WaitSeconds:    g.totals.waitTime.inSeconds(),
		Left:           g.totals.left,
		RunningSeconds: g.totals.running.inSeconds(),
		Panics:         g.panics.Load(),
	}
}

// hooks returns the hooks that there are now.
func (g *Gate) hooks() []Hooks {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.hooks
}

// tellRefused tells the hooks of a refusal that was counted.
func (g *Gate) tellRefused(hooks []Hooks, c Class, why Reason, waited time.Duration) {
	if len(hooks) == 0 {
		return
	}
	g.each(hooks, func(h *Hooks) {
		if h.Refused != nil {
			h.Refused(c, why, waited)
		}
	})
}

func (g *Gate) countWaited(c Class, waited time.Duration) {
	g.mu.Lock()
	g.totals.waited++
	g.totals.waitTime.add(span{rest: waited})
	hooks := g.cfg.hooks
	g.mu.Unlock()
	g.each(hooks, func(h *Hooks) {
		if h.Waited != nil {
			h.Waited(c, waited)
		}
	})
}

// left counts a call that left by itself and returns err.
func (g *Gate) left(c Class, waited time.Duration, err error) error {
	g.mu.Lock()
	c = g.cfg.classes.class(c)
	g.totals.left++
	g.mu.Unlock()
	g.tellLeft(c, waited, err)
	return err
}

// tellLeft tells the hooks of a call that left and was counted.
func (g *Gate) tellLeft(c Class, waited time.Duration, err error) {
	g.each(g.hooks(), func(h *Hooks) {
		if h.Left != nil {
			h.Left(c, waited, err)
		}
	})
}
