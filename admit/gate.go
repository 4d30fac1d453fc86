package admit

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// A Gate bounds how many calls run and how many wait. It is safe for concurrent use. Use
// [New]. A Gate that New did not make refuses every call with an error.
//
// The gate locks and waits. Package turn decides, under the lock, which call runs, waits,
// is evicted or is refused. While permits are free, a call takes one and returns it with
// a single atomic operation each. Once a call waits, every call takes the lock until the
// queue is empty.
type Gate struct {
	inFlight inFlight
	_        [48]byte // every call writes the line above, and most calls only read below

	yield    yielder
	epoch    time.Time // when the gate was created, the zero of its clock
	quotas   atomic.Pointer[quotas]
	sheds    atomic.Pointer[sheds] // nil without pressure
	samples  samples
	panics   atomic.Uint64
	stalls   atomic.Uint64 // see Stats.SendStalls
	waiters  sync.Pool     // of *waiter. Their timers must not leave a testing/synctest bubble.
	shortest shortestCalls
	late     lateCalls
	ready    atomic.Int64 // calls that go on without a permit: see Permit.Ready
	// leaving counts the permits of finished calls, and beyond the ones among them that the
	// limit does not count: see Permit.Finish.
	leaving, beyond atomic.Int64
	countsFinished  atomic.Bool

	looks     sync.Mutex // held during a look, so that two looks do not share the tenants
	mu        sync.Mutex // guards the fields below
	cfg       config
	turns     *turn.Queue // the pointer is set by New and does not change
	pace      pacer
	lasts     pacer // how long calls take, whether permits are free or not
	probing   bool  // the algorithm holds newcomers back, see limit.Prober
	crowd     crowd
	draining  bool
	algorithm ownership
	refusals  refusals
	dice      dice // the jitter of refusals
	window    window
	counters  counters
	past      past
	refused   refusedLog
	watch     watch
}

// New returns a gate. By default it has an adaptive limit and a queue that absorbs
// bursts, which suits a service about which nothing is known. The error wraps [ErrConfig]
// and names every wrong option.
func New(opts ...Option) (*Gate, error) {
	cfg := config{name: "default", classes: newClassTable()}
	cfg.apply(opts)
	if !cfg.algorithmSet {
		a, err := limit.NewAdaptive(limit.AdaptiveConfig{})
		if err != nil {
			return nil, err
		}
		cfg.algorithm, cfg.algorithmSet = a, true
	}
	g := &Gate{epoch: time.Now(), turns: turn.New(cfg.turns()), dice: dice(rand.Uint64())}
	if err := g.checkLocked(&cfg); err != nil {
		return nil, err
	}
	cfg.useLog()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cfg = cfg
	g.waiters.New = func() any { return newWaiter() }
	g.samples.init()
	g.window.begin()
	g.refusals.init(&cfg)
	g.yield.init()
	g.inFlight.setLimit(cfg.initial)
	g.samples.useMark(cfg.algorithm)
	g.useLockLocked()
	g.useQuotasLocked()
	g.usePressureLocked()
	g.useFinishedLocked()
	return g, nil
}

// Name returns the gate's name.
func (g *Gate) Name() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.name
}

// Limit returns the number of permits. It takes no lock.
func (g *Gate) Limit() int { return g.inFlight.load().limit() }

// InFlight returns the number of permits in use that count against the limit, which is
// Stats.InFlight without Stats.Beyond. It takes no lock.
func (g *Gate) InFlight() int { return g.inFlight.load().inFlight() }

// isZero reports whether New did not make the gate.
func (g *Gate) isZero() bool { return g.turns == nil }

// now reads the gate's clock. It is monotonic, and cheaper than time.Now.
func (g *Gate) now() time.Duration { return time.Since(g.epoch) }

// Acquire takes a permit for a call. If none is free, it blocks until the call is
// admitted or refused, or until ctx ends. It refuses a call without blocking if the call
// cannot be served before its deadline, or if it finds no place in the queue.
// Waiters are served by class. Within a class, the tenant that holds the fewest permits is
// first, and then the oldest waiter. See [QueueConfig].
//
// If ctx ended first, the error is ctx's own, unchanged. Otherwise it is a *[Refusal].
// Release the permit exactly once, in a defer:
//
//	permit, err := gate.Acquire(ctx, admit.Call{})
//	if err != nil {
//		return err
//	}
//	outcome := admit.Ignored
//	defer func() { permit.Release(outcome) }()
func (g *Gate) Acquire(ctx context.Context, c Call) (Permit, error) {
	if err := ctx.Err(); err != nil {
		return Permit{}, g.leave(ctx, c, 0, err)
	}
	if s := g.sheds.Load(); s != nil && c.quota == notAsked {
		refusal, would := g.shed(ctx, s, c)
		if refusal != nil {
			return Permit{}, refusal
		}
		if would {
			c.quota = wouldFail
		}
	}
	if q := g.quotas.Load(); q != nil && c.quota == notAsked {
		return g.acquireWithin(ctx, c, q)
	}
	for c.Cost <= 1 && c.Tenant == "" {
		s := g.inFlight.load()
		if s.mustLock() || !s.free() {
			break
		}
		if g.inFlight.take(s, 1) {
			n := s.inFlight() + 1
			start := g.now()
			g.yield.maybe(n)
			return Permit{gate: g, start: start, claim: claim{cost: 1, class: c.Class, begun: g.samples.begin(n)}}, nil
		}
	}
	return g.acquireLocking(ctx, c)
}

// acquireLocking is Acquire under the lock. It tries to refuse before it reads the clock,
// because a refusal must be cheap.
func (g *Gate) acquireLocking(ctx context.Context, call Call) (Permit, error) {
	if g.isZero() {
		return Permit{}, errZeroGate
	}
	g.mu.Lock()
	call, c := g.describeLocked(call)
	if why, refuse := g.refuseAllLocked(); refuse {
		return g.refuseAndUnlock(ctx, call, why)
	}
	if g.crowdedLocked() {
		if g.cfg.dryRun {
			return g.passCrowdedAndUnlock(ctx, call, c)
		}
		return g.refuseAndUnlock(ctx, call, TooManyOpen)
	}
	s := g.inFlight.load()
	if s.inFlight()+c.Cost > s.limit() && !g.turns.Counted() && !g.cfg.dryRun {
		if why, shut := g.turns.Shut(c, s.limit()); shut {
			g.window.pressed++
			return g.refuseAndUnlock(ctx, call, reasonOf[why])
		}
	}
	now := g.now()
	if got, ok := g.claimLocked(c, now); ok {
		g.enterLocked(ctx, call, &got, now)
		n := g.inFlight.load().inFlight()
		g.mu.Unlock()
		g.yield.maybe(n)
		return Permit{gate: g, start: now, claim: got}, nil
	}
	pressed := g.pressLocked(c)
	if g.cfg.dryRun {
		return g.passAndUnlock(ctx, call, c, now, pressed)
	}
	return g.queueAndUnlock(ctx, call, c, now, pressed)
}

// describeLocked returns the call with a class of the gate, and as package turn knows it.
func (g *Gate) describeLocked(call Call) (Call, turn.Call) {
	call.Class = g.cfg.classes.class(call.Class)
	return call, turn.Call{Class: int(call.Class), Tenant: call.Tenant, Cost: min(max(call.Cost, 1), g.Limit())}
}

// refuseAllLocked reports whether the gate refuses every call now, and why.
func (g *Gate) refuseAllLocked() (why Reason, refuse bool) {
	if g.draining {
		return Draining, true
	}
	if g.cfg.refuseIf != nil && !g.cfg.dryRun {
		return g.cfg.refuseIf()
	}
	return 0, false
}

// pressLocked counts a call that cannot run at once. It returns false if permits are free
// and only the narrow bound of its class or tenant keeps the call waiting. Such a call is no
// reason to raise the limit.
func (g *Gate) pressLocked(c turn.Call) (pressed bool) {
	s := g.inFlight.load()
	if g.turns.Among(c.Class, s.inFlight(), s.limit())+c.Cost > s.limit() {
		g.window.pressed++
		return true
	}
	g.window.bounded++
	return false
}

// A claim is the permits that a call holds, and how it began.
type claim struct {
	cost   int
	class  Class
	holder *turn.Tenant // nil unless the gate counts permits by tenant
	begun  begun
	listed *running // nil unless the gate is watched
}

// claimLocked takes permits for a call that may run at once.
func (g *Gate) claimLocked(c turn.Call, now time.Duration) (claim, bool) {
	for {
		s := g.inFlight.load()
		cost, ok := g.turns.MayRun(c, g.roomLocked(s, now))
		if !ok {
			return claim{}, false
		}
		if g.inFlight.take(s, cost) {
			return g.holdLocked(c, cost, now), true
		}
	}
}

// amongLocked returns the number of permits in use, as the limit is to see it when a call of a
// class begins.
func (g *Gate) amongLocked(class int) int {
	s := g.inFlight.load()
	n := g.turns.Among(class, s.inFlight(), s.limit())
	g.inFlight.sawInUse(int64(n))
	return n
}

// holdLocked makes a claim of permits that were taken.
func (g *Gate) holdLocked(c turn.Call, cost int, now time.Duration) claim {
	s := g.inFlight.load()
	holder := g.turns.Hold(c, cost, g.roomLocked(s, now))
	return claim{cost: cost, class: Class(c.Class), holder: holder, begun: g.samples.begin(g.amongLocked(c.Class))}
}

// roomLocked returns the gate's state as package turn knows it.
func (g *Gate) roomLocked(s word, now time.Duration) turn.Room {
	return turn.Room{Limit: s.limit(), InFlight: s.inFlight(), Now: now, Pace: g.pace.least, Lasts: g.lasts.least, Probing: g.probing}
}

// refuseAndUnlock refuses a call that has not waited.
func (g *Gate) refuseAndUnlock(ctx context.Context, c Call, why Reason) (Permit, error) {
	refusal, hooks := g.refusalLocked(ctx, c, why), g.hooksLocked()
	g.mu.Unlock()
	hooks.refused(ctx, c, why, 0)
	return Permit{}, refusal
}

// refusalLocked counts a refusal and returns it.
func (g *Gate) refusalLocked(ctx context.Context, c Call, why Reason) *Refusal {
	if g.refusals.quiet.due() {
		g.seeSilenceLocked(g.now())
	}
	refusal := g.refusals.get(why, &g.dice)
	g.countRefusedLocked(ctx, c, why, refusal)
	return refusal
}

// leave counts a call that leaves with its context, reports it to the hooks, and returns
// err.
func (g *Gate) leave(ctx context.Context, c Call, waited time.Duration, err error) error {
	g.mu.Lock()
	c.Class = g.cfg.classes.class(c.Class)
	g.counters.left++
	hooks := g.hooksLocked()
	g.mu.Unlock()
	hooks.left(ctx, c, waited, err)
	return err
}
