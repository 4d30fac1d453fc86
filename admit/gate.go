package admit

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// A Gate bounds how many calls run and how many wait. It is safe for
// concurrent use. Use [New]; the zero Gate is not usable.
//
// While permits are free, a call takes and returns one with a single atomic
// operation each. Once one has to wait, every call goes through the lock until
// no call waits.
//
// The gate locks and waits. Package turn decides, under the lock, which call
// runs, waits, is evicted or is refused.
type Gate struct {
	// state holds the number of calls in flight, the limit, and whether calls
	// must take the lock: see word.
	state atomic.Uint64
	// peak is the most calls in flight since the last window.
	peak atomic.Int64
	_    [48]byte // most calls only read what follows: not on the line that all of them write

	// crowd is the number of processors. Where calls are nothing but work for
	// them, those that have begun would keep all processors, others would wait
	// for one before they reach the gate, and no limit above that number would
	// ever be reached. So a call that makes it a crowd lets others go first,
	// with its clock running: they wait here, where it is seen. Calls that are
	// over before a yield would pay do not bother.
	crowd   int
	yields  atomic.Bool
	epoch   time.Time
	quotas  atomic.Pointer[quotas]
	sheds   atomic.Pointer[sheds] // nil without pressure
	shards  []shard
	mark    atomic.Int64 // of the algorithm: see limit.Prober
	foldAt  atomic.Int64 // when to look at the shards again, on the gate's clock
	panics  atomic.Uint64
	waiters sync.Pool // of *waiter; per gate, for their channels and timers
	least   leastTimes

	mu       sync.Mutex // guards what follows
	cfg      config
	turns    *turn.Queue
	pace     time.Duration // mean time between two permits returned at the limit
	draining bool
	owns     uintptr         // the address of the algorithm: see own
	unowned  runtime.Cleanup // when the gate is gone
	refusals refusals
	dice     dice // for the jitter of refusals
	window   window
	totals   totals
}

// New returns a gate, by default with an adaptive limit and a queue that absorbs
// bursts: the right one for a service about which nothing is known. It returns
// an error that wraps ErrConfig and names every wrong option.
func New(opts ...Option) (*Gate, error) {
	cfg := config{name: "default", classes: newClassTable()}
	cfg.take(opts)
	if !cfg.algorithmSet {
		a, err := limit.NewAdaptive(limit.AdaptiveConfig{})
		if err != nil {
			return nil, err
		}
		cfg.algorithm, cfg.algorithmSet = a, true
	}
	g := &Gate{crowd: runtime.GOMAXPROCS(0), epoch: time.Now(), shards: newShards()}
	if err := g.check(&cfg); err != nil {
		return nil, err
	}
	g.cfg, g.turns, g.dice = cfg, turn.New(cfg.turns()), dice(rand.Uint64())
	g.waiters.New = func() any { return newWaiter() }
	g.state.Store(uint64(newWord(cfg.initial)))
	g.window.limit = cfg.initial
	g.markLocked(cfg.algorithm)
	g.refusals.init(&cfg)
	g.yields.Store(true)
	g.mu.Lock()
	g.settleLocked()
	g.settleQuotasLocked()
	g.settlePressureLocked()
	g.mu.Unlock()
	return g, nil
}

// Name returns the gate's name.
func (g *Gate) Name() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.name
}

// now is the gate's clock: monotonic, and cheaper to read than time.Now.
func (g *Gate) now() time.Duration { return time.Since(g.epoch) }

// Acquire takes a permit for a call. When none is free it waits until its turn,
// until ctx ends, or until the gate refuses the call. It refuses a call at once,
// without waiting, when the call could not be served in time, or when the queue
// stands: see [QueueConfig]. Classes decide whose turn it is first, then the
// tenants' shares, then who has waited longest.
//
// The error is ctx's own, unchanged, when ctx ended first; otherwise it is a
// *[Refusal]. On success release the permit exactly once, in a defer:
//
//	permit, err := gate.Acquire(ctx, admit.Call{})
//	if err != nil {
//		return err
//	}
//	outcome := admit.Ignored
//	defer func() { permit.Release(outcome) }()
func (g *Gate) Acquire(ctx context.Context, c Call) (Permit, error) {
	if err := ctx.Err(); err != nil {
		return Permit{}, g.left(c.Class, 0, err)
	}
	if s := g.sheds.Load(); s != nil && c.quota == notAsked {
		var refusal *Refusal
		if c.quota, refusal = g.shed(s, c); refusal != nil {
			return Permit{}, refusal
		}
	}
	if q := g.quotas.Load(); q != nil && c.quota == notAsked {
		return g.acquireWithin(ctx, c, q)
	}
	for c.Cost <= 1 && c.Tenant == "" {
		s := g.load()
		if s.slow() || !s.free() {
			break
		}
		if g.swap(s, s.plus(1)) {
			g.sawInFlight(s.inFlight() + 1)
			start := g.now()
			g.maybeYield(s.inFlight() + 1)
			return Permit{gate: g, start: start, claim: claim{cost: 1, class: c.Class, begun: g.begin(s.inFlight() + 1)}}, nil
		}
	}
	return g.acquireSlow(ctx, c)
}

// maybeYield lets the calls that are on their way arrive: see crowd.
func (g *Gate) maybeYield(inFlight int) {
	if inFlight >= g.crowd && g.yields.Load() {
		runtime.Gosched()
	}
}

func (g *Gate) sawInFlight(n int) {
	for {
		p := g.peak.Load()
		if int64(n) <= p || g.peak.CompareAndSwap(p, int64(n)) {
			return
		}
	}
}

func (g *Gate) acquireSlow(ctx context.Context, call Call) (Permit, error) {
	if g.shards == nil {
		return Permit{}, errZeroGate
	}
	g.mu.Lock()
	s := g.load()
	class := g.cfg.classes.class(call.Class)
	c := turn.Call{Class: int(class), Tenant: call.Tenant, Cost: min(max(call.Cost, 1), s.limit())}
	if g.draining {
		return g.refuseAndUnlock(class, Draining)
	}
	if why, refuses := g.toldToRefuseLocked(); refuses {
		return g.refuseAndUnlock(class, why)
	}
	if s.inFlight()+c.Cost > s.limit() && !g.turns.Counted() && !g.cfg.dryRun { // the shortest way: it reads no clock
		if why, shut := g.turns.Shut(c, s.limit()); shut {
			g.window.pressed++
			return g.refuseAndUnlock(class, reasonOf[why])
		}
	}
	now := g.now()
	if got, ok := g.claimLocked(c, now); ok {
		n := g.load().inFlight()
		g.mu.Unlock()
		g.maybeYield(n)
		return Permit{gate: g, start: now, claim: got}, nil
	}
	s = g.load()
	pressed := s.inFlight()+c.Cost > s.limit() // and not only the bound of its class
	if pressed {
		g.window.pressed++
	} else {
		g.window.bounded++
	}
	if g.cfg.dryRun {
		return g.passAndUnlock(c, now, pressed, call.quota == wouldFail)
	}
	return g.queueAndUnlock(ctx, c, now, pressed)
}

// A claim is what a call holds of its gate.
type claim struct {
	cost   int
	class  Class
	holder *turn.Tenant // nil if it need not be known who holds the permits
	begun  begun
}

// claimLocked takes permits for a call that may run at once.
func (g *Gate) claimLocked(c turn.Call, now time.Duration) (claim, bool) {
	for {
		s := g.load()
		cost, ok := g.turns.MayRun(c, g.room(s, now))
		if !ok {
			return claim{}, false
		}
		if g.swap(s, s.plus(cost)) {
			g.sawInFlight(s.inFlight() + cost)
			return g.holdLocked(c, cost, now), true
		}
	}
}

// holdLocked notes which tenant holds permits, where that matters.
func (g *Gate) holdLocked(c turn.Call, cost int, now time.Duration) claim {
	holder := g.turns.Hold(c, cost, g.room(g.load(), now))
	return claim{cost: cost, class: classOf(c.Class), holder: holder, begun: g.begin(g.load().inFlight())}
}

// room is what package turn is told of a moment.
func (g *Gate) room(s word, now time.Duration) turn.Room {
	return turn.Room{Limit: s.limit(), InFlight: s.inFlight(), Now: now, Pace: g.pace}
}

// refuseAndUnlock refuses a call that has just come.
func (g *Gate) refuseAndUnlock(c Class, why Reason) (Permit, error) {
	g.totals.refused[c][why]++
	hooks, refusal := g.cfg.hooks, g.refusalLocked(why)
	g.mu.Unlock()
	g.tellRefused(hooks, c, why, 0)
	return Permit{}, refusal
}

func (g *Gate) refusalLocked(why Reason) *Refusal { return g.refusals.get(why, &g.dice) }

// reasonOf translates what package turn says.
var reasonOf = [...]Reason{
	turn.QueueFull:        QueueFull,
	turn.Displaced:        Displaced,
	turn.DeadlineTooClose: DeadlineTooClose,
	turn.OverShare:        OverShare,
}

func classOf(i int) Class { return Class(i) }

// addLocked changes the number of permits in use, whatever the limit.
func (g *Gate) addLocked(d int) {
	for {
		s := g.load()
		if g.swap(s, s.plus(d)) {
			g.sawInFlight(s.inFlight() + d)
			return
		}
	}
}

// giveBack returns permits: to the next waiter, if there is one.
func (g *Gate) giveBack(c claim, now time.Duration) {
	for c.holder == nil {
		s := g.load()
		if s.slow() {
			break
		}
		if g.swap(s, s.plus(-c.cost)) {
			return
		}
	}
	g.mu.Lock()
	g.giveBackLocked(c, now)
	g.mu.Unlock()
}

func (g *Gate) giveBackLocked(c claim, now time.Duration) {
	g.addLocked(-c.cost)
	if c.holder != nil {
		g.turns.Return(c.holder, c.cost, g.room(g.load(), now))
	}
	g.dispatchLocked(now)
}

// settleLocked lets calls past the lock again if nothing needs them at it.
func (g *Gate) settleLocked() {
	slow := g.turns.Len() > 0 || g.draining || g.cfg.dryRun || g.turns.Counted() || g.cfg.refuses != nil
	for {
		s := g.load()
		if s.slow() == slow || g.swap(s, s.withSlow(slow)) {
			return
		}
	}
}

// Full reports whether a call that came now would be refused or take another's
// place: the gate is draining, or every permit is taken and so are the places in
// the queue. So does pressure that refuses calls of some class. It is a cheap early
// check, for a tap handle; [Gate.TurnAway] knows more.
func (g *Gate) Full() bool {
	if g.shedding() {
		return true
	}
	s := g.load()
	if !s.slow() && s.free() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s = g.load()
	return g.draining || !g.cfg.dryRun && g.shards != nil && !s.free() && g.turns.Full(s.limit())
}

// TurnAway refuses a call, and counts that, if the gate is [Gate.Full] and
// Acquire would refuse the call at once, whatever its deadline. It never blocks.
// A call that it does not turn away has to ask Acquire.
func (g *Gate) TurnAway(call Call) (why Reason, away bool) {
	if why, away = g.shedEarly(call); away {
		return why, true
	}
	if q := g.quotas.Load(); q != nil && g.Full() && q.over(call, time.Now()) {
		why, _, _ = g.overQuota(call)
		return why, true
	}
	g.mu.Lock()
	s := g.load()
	class := g.cfg.classes.class(call.Class)
	switch {
	case g.draining:
		why, away = Draining, true
	case !g.cfg.dryRun && g.shards != nil && !s.free():
		c := turn.Call{Class: int(class), Tenant: call.Tenant, Cost: min(max(call.Cost, 1), s.limit())}
		var because turn.Reason
		because, away = g.turns.Shut(c, s.limit())
		why = reasonOf[because]
	}
	if !away {
		g.mu.Unlock()
		return 0, false
	}
	g.window.pressed++
	g.totals.refused[class][why]++
	hooks := g.cfg.hooks
	g.mu.Unlock()
	g.tellRefused(hooks, class, why, 0)
	return why, true
}
