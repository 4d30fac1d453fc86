package admit

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/limit"
)

// A Gate bounds how many calls run and how many wait. It is safe for
// concurrent use. Use [New]; the zero Gate is not usable.
//
// While permits are free, a call takes and returns one with a single atomic
// operation each. Once one has to wait, every call goes through the lock, in
// the queue's order, until nobody waits.
type Gate struct {
	// state holds the number of calls in flight, the limit, and whether calls
	// must take the lock: see word.
	state atomic.Uint64
	// peak is the most calls in flight since the last window.
	peak atomic.Int64
	_    [48]byte // what follows is only read by most calls: not on the line that all of them write

	// crowd is the number of processors. Where calls are nothing but work for
	// them, those that have begun would keep all processors, others would wait
	// for one before they reach the gate, and no limit above that number would
	// ever be reached. So a call that makes it a crowd lets others go first,
	// with its clock running: they wait here, where it is seen. Calls that are
	// over before a yield would pay do not bother.
	crowd   int
	yields  atomic.Bool
	epoch   time.Time
	shards  []shard
	foldAt  atomic.Int64 // when to look at the shards again, on the gate's clock
	panics  atomic.Uint64
	waiters sync.Pool // of *waiter; per gate, for their channels and timers

	pushback atomic.Int64 // the mean delay that refusals ask for
	quotas   atomic.Pointer[quotas]

	mu         sync.Mutex // guards what follows
	cfg        config
	queue      queue
	queueSince time.Duration // since when the queue has not been empty
	youngest   time.Duration // when the newest waiter began to wait
	pace       time.Duration // mean time between two permits returned at the limit
	draining   bool
	owns       uintptr         // the address of the algorithm: see own
	unowned    runtime.Cleanup // when the gate is gone
	window     window
	totals     totals
}

// New returns a gate, by default with an adaptive limit and a short queue: the
// right one for a service about which nothing is known. It returns an error
// that wraps ErrConfig and names every wrong option.
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
	g.cfg = cfg
	g.queue.init()
	g.waiters.New = func() any { return &waiter{ready: make(chan *Refusal, 1)} }
	g.state.Store(uint64(newWord(cfg.initial)))
	g.window.limit = cfg.initial
	g.pushback.Store(int64(usualDelay))
	g.yields.Store(true)
	g.mu.Lock()
	g.settleLocked()
	g.settleQuotasLocked()
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

// Acquire takes a permit for a call. When none is free it waits as the queue is
// configured, until its turn, ctx ends, or the gate refuses. Classes decide whose
// turn it is first, then shares of tenants, then the queue's order.
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
			return Permit{gate: g, start: start, claim: claim{cost: 1}}, nil
		}
	}
	return g.acquireSlow(ctx, c)
}

// maybeYield lets those who are on their way arrive: see crowd.
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

func (g *Gate) acquireSlow(ctx context.Context, c Call) (Permit, error) {
	if g.shards == nil {
		return Permit{}, errZeroGate
	}
	g.mu.Lock()
	now := g.now()
	c = g.knownLocked(c)
	if g.draining {
		return g.refuseAndUnlock(c.Class, Draining)
	}
	if got, ok := g.claimLocked(c); ok {
		n := g.load().inFlight()
		g.mu.Unlock()
		g.maybeYield(n)
		return Permit{gate: g, start: now, claim: got}, nil
	}
	s := g.load()
	pressed := s.inFlight()+c.Cost > s.limit() // and not only the bound of its class
	if pressed {
		g.window.pressed++
	}
	if g.cfg.dryRun {
		return g.passAndUnlock(c, now, pressed)
	}
	deadline, why, ok := g.mayWaitLocked(ctx, c, now)
	if !ok {
		return g.refuseAndUnlock(c.Class, why)
	}
	w := g.enqueueLocked(c, now, deadline)
	w.pressed = pressed
	if g.settleLocked(); g.load().free() { // a permit came free before releases were sent to the lock
		g.dispatchLocked()
	}
	patience := g.cfg.maxWait()
	g.mu.Unlock()
	return g.wait(ctx, w, patience)
}

// knownLocked is a call as the gate takes it: of a class that there is, and
// with a cost that there can be.
func (g *Gate) knownLocked(c Call) Call {
	c.Class, c.Cost = g.cfg.classes.class(c.Class), min(max(c.Cost, 1), g.load().limit())
	return c
}

// A claim is what a call holds of its gate.
type claim struct {
	cost   int
	tenant *tenant // nil if nobody counts whose it is
}

// claimLocked takes permits for a call that need not wait: nobody is before it,
// and they are free.
func (g *Gate) claimLocked(c Call) (claim, bool) {
	l := &g.queue.lines[c.Class]
	for {
		s := g.load()
		cost := min(c.Cost, s.limit())
		if s.inFlight()+cost > s.limit() || l.n > 0 || !g.mayHoldLocked(l, cost, s.limit()) ||
			g.queue.n > 0 && g.nextLocked(s.limit()) != nil {
			return claim{}, false
		}
		if g.swap(s, s.plus(cost)) {
			g.sawInFlight(s.inFlight() + cost)
			return g.countLocked(c.Class, c.Tenant, cost), true
		}
	}
}

// countLocked notes who holds permits, where that matters.
func (g *Gate) countLocked(c Class, key string, cost int) claim {
	if key == "" && !g.cfg.classes.counted && g.queue.lines[c].named == 0 {
		return claim{cost: cost}
	}
	t := g.queue.tenant(c, key)
	g.queue.hold(t, cost)
	return claim{cost: cost, tenant: t}
}

// mayWaitLocked says whether a call may join the queue, making room if the
// policy wants it, and its deadline on the gate's clock (0 for none).
func (g *Gate) mayWaitLocked(
	ctx context.Context, c Call, now time.Duration,
) (deadline time.Duration, why Reason, ok bool) {
	capacity := g.cfg.capacity(g.load().limit())
	if d, has := ctx.Deadline(); has {
		deadline = d.Sub(g.epoch)
		if now+g.turnLocked(c, capacity)+g.window.fastest >= deadline {
			return 0, DeadlineTooClose, false
		}
	}
	if g.cfg.queue.Policy == Block || g.queue.n < capacity && !g.crowdedLocked(c.Class, capacity) {
		return deadline, 0, true
	}
	why, ok = g.makeRoomLocked(c, capacity)
	return deadline, why, ok
}

// crowdedLocked reports whether so many of a bounded class wait as may.
func (g *Gate) crowdedLocked(c Class, capacity int) bool {
	return g.cfg.classes.bounded(c) && g.queue.lines[c].n >= g.cfg.classes.most(c, capacity)
}

// turnLocked estimates how long a newcomer waits for its turn, at the least:
// permits come back at the limit divided by the mean latency (Little's law). It
// is 0 before anything is known.
func (g *Gate) turnLocked(c Call, capacity int) time.Duration {
	own, permits := &g.queue.lines[c.Class], g.load().limit()
	before := 0 // of its own class
	if !g.newestFirst(g.upToLocked(own)+1, capacity) {
		before = own.before(g.queue.find(c.Class, c.Tenant))
	}
	above := 0
	for i := range g.queue.lines {
		other := &g.queue.lines[i]
		if other != own && !g.outranksLocked(own, other) && g.mayHoldLocked(other, 1, permits) {
			above += other.n
		}
	}
	// Whatever is above it, its class gets one permit in so many, and its share.
	above = min(above, before*progress+max(0, progress*c.Cost-own.passed))
	turns := above + before
	if share := g.cfg.classes.guaranteed(c.Class, permits); share > 0 {
		beyond := max(0, own.held+before+c.Cost-share)
		turns = min(turns, max(before, beyond*permits/share))
	}
	return time.Duration(turns) * g.pace
}

// outranksLocked reports whether a line is of a higher priority than another.
func (g *Gate) outranksLocked(l, other *line) bool {
	return g.cfg.classes.priority(l.class) > g.cfg.classes.priority(other.class)
}

// upToLocked counts the calls that wait in a line, and in those of no lower
// priority.
func (g *Gate) upToLocked(l *line) (n int) {
	for i := range g.queue.lines {
		if other := &g.queue.lines[i]; !g.outranksLocked(l, other) {
			n += other.n
		}
	}
	return n
}

// newestFirst reports whether the newest call of a class is served first when so
// many wait in it and above it.
func (g *Gate) newestFirst(n, capacity int) bool {
	return g.cfg.queue.Order == AdaptiveLIFO && 2*n > capacity
}

func (g *Gate) enqueueLocked(c Call, now, deadline time.Duration) *waiter {
	w := g.waiters.Get().(*waiter) //nolint:forcetypeassert // the pool makes nothing else
	w.class, w.cost, w.since, w.deadline = c.Class, c.Cost, now, deadline
	w.tenant = g.queue.tenant(c.Class, c.Tenant)
	if g.queue.n == 0 {
		g.queueSince = now
	}
	g.queue.push(w)
	g.youngest = now
	return w
}

// wait waits for the verdict on w, at most for patience if that is not 0.
func (g *Gate) wait(ctx context.Context, w *waiter, patience time.Duration) (Permit, error) {
	var late <-chan time.Time
	if patience > 0 && (w.deadline == 0 || w.since+patience < w.deadline) {
		late = w.startTimer(patience)
	}
	var refused *Refusal
	select {
	case refused = <-w.ready:
	case <-ctx.Done():
		refused = g.withdraw(w, WaitedTooLong)
	case <-late:
		refused = g.withdraw(w, WaitedTooLong)
	}
	c, since, granted, got, pressed := w.class, w.since, w.granted, w.claim, w.pressed
	waited := g.now() - since
	w.stopTimer()
	g.waiters.Put(w)

	err := ctx.Err()
	switch {
	case err != nil && refused == nil: // the permit goes to the next one
		g.giveBack(got)
		return Permit{}, g.left(c, waited, err)
	case err != nil && refused.Reason == WaitedTooLong:
		return Permit{}, g.left(c, waited, err)
	case refused != nil:
		g.countRefusal(c, refused.Reason, waited)
		return Permit{}, refused
	}
	g.holding(got, func() { g.countWaited(c, waited) })
	return Permit{gate: g, start: granted, claim: got, pressed: pressed, waited: granted - since}, nil
}

func (w *waiter) startTimer(d time.Duration) <-chan time.Time {
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	return w.timer.C
}

func (w *waiter) stopTimer() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// withdraw takes w out of the queue. If its verdict was faster, that stands.
func (g *Gate) withdraw(w *waiter, why Reason) *Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.queued {
		return <-w.ready // sent before the lock was released: does not block
	}
	g.queue.remove(w)
	g.dispatchLocked() // those behind it may want less
	return g.refusal(why)
}

// refuseLocked takes w out of the queue and tells it why.
func (g *Gate) refuseLocked(w *waiter, why Reason) {
	g.queue.remove(w)
	w.ready <- g.refusal(why)
}

func (g *Gate) refusal(why Reason) *Refusal {
	base := time.Duration(g.pushback.Load())
	if why == Draining {
		base = drainDelay
	}
	return refusal(why, base)
}

func (g *Gate) refuseAndUnlock(c Class, why Reason) (Permit, error) {
	g.mu.Unlock()
	r := g.refusal(why)
	g.countRefusal(c, why, 0)
	return Permit{}, r
}

// passAndUnlock lets a call in that found no permit free, in a dry run, and
// counts what would have become of it: calls beyond the limit, or the bound of
// their class, as if each cost as much as this one, stand for those that would wait.
func (g *Gate) passAndUnlock(c Call, now time.Duration, pressed bool) (Permit, error) {
	s := g.load()
	capacity := g.cfg.capacity(s.limit())
	full := capacity == 0 || (s.inFlight()-s.limit())/c.Cost >= capacity
	if t := &g.cfg.classes; t.bounded(c.Class) {
		over := g.queue.lines[c.Class].held - t.most(c.Class, s.limit())
		full = full || over/c.Cost >= t.most(c.Class, capacity)
	}
	cost := g.beyondLocked(c.Cost)
	g.addLocked(cost)
	got := g.countLocked(c.Class, c.Tenant, cost)
	g.mu.Unlock()
	g.holding(got, func() {
		switch {
		case c.quota == wouldFail: // counted
		case full:
			g.countRefusal(c.Class, QueueFull, 0)
		default:
			g.countWaited(c.Class, 0)
		}
	})
	return Permit{gate: g, start: now, claim: got, pressed: pressed}, nil
}

// beyondLocked returns what a call takes that is let in whatever the limit.
func (g *Gate) beyondLocked(cost int) int {
	if g.load().inFlight() > manyInFlight {
		return 1
	}
	return cost
}

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
func (g *Gate) giveBack(c claim) {
	for c.tenant == nil {
		s := g.load()
		if s.slow() {
			break
		}
		if g.swap(s, s.plus(-c.cost)) {
			return
		}
	}
	g.mu.Lock()
	g.addLocked(-c.cost)
	if c.tenant != nil {
		g.queue.hold(c.tenant, -c.cost)
	}
	g.dispatchLocked()
	g.mu.Unlock()
}

// dispatchLocked hands free permits to waiters. Who is next may want more than
// are free: then it waits for them, and all others behind it.
func (g *Gate) dispatchLocked() {
	for g.queue.n > 0 {
		s := g.load()
		w := g.nextLocked(s.limit())
		if w == nil || !s.free() {
			break
		}
		now, cost := g.now(), min(w.cost, s.limit())
		switch {
		case w.deadline > 0 && now+g.window.fastest >= w.deadline:
			g.refuseLocked(w, DeadlineTooClose)
		case g.staleLocked(w, now):
			g.refuseLocked(w, WaitedTooLong)
		case s.inFlight()+cost > s.limit():
			return
		default:
			g.grantLocked(w, cost, now)
		}
	}
	g.settleLocked()
}

// grantLocked gives w its permits. Its latency counts from here: the time that
// its goroutine takes to wake up is part of what they are held for.
func (g *Gate) grantLocked(w *waiter, cost int, now time.Duration) {
	g.servedLocked(w.tenant.line, cost)
	g.oweLocked(w.tenant, cost)
	g.addLocked(cost)
	w.claim = g.countLocked(w.class, w.tenant.key, cost)
	g.queue.remove(w)
	w.granted = now
	w.ready <- nil
}

const (
	codelInterval = 100 * time.Millisecond
	codelTarget   = 5 * time.Millisecond
)

func (g *Gate) staleLocked(w *waiter, now time.Duration) bool {
	return g.cfg.queue.Order == CoDel && now-g.queueSince > codelInterval && now-w.since > codelTarget
}

// settleLocked lets calls past the lock again if nothing needs them at it.
func (g *Gate) settleLocked() {
	slow := g.queue.n > 0 || g.draining || g.cfg.dryRun || g.cfg.classes.counted
	for {
		s := g.load()
		if s.slow() == slow || g.swap(s, s.withSlow(slow)) {
			return
		}
	}
}

func (g *Gate) setLimitLocked(n int) {
	for {
		s := g.load()
		if g.swap(s, s.withLimit(n)) {
			break
		}
	}
	g.window.limit = n
	g.trimLocked()
	g.dispatchLocked()
}

// trimLocked refuses the waiters for whom there is no place any more.
func (g *Gate) trimLocked() {
	capacity := g.cfg.capacity(g.load().limit())
	if g.cfg.queue.Policy == Block {
		return
	}
	for i := range g.queue.lines {
		l, most := &g.queue.lines[i], g.cfg.classes.most(Class(i), capacity)
		for l.n > most {
			g.refuseLocked(l.heaviest().calls.first, Displaced)
		}
	}
	for g.queue.n > capacity {
		from := g.lowestLocked(func(l *line) bool { return !g.withinShareLocked(l, capacity) })
		if from == nil {
			from = g.lowestLocked(anyLine)
		}
		g.refuseLocked(from.heaviest().calls.first, Displaced)
	}
}

// Full reports whether a call that came now would be refused or take another's
// place: the gate is draining, or every permit is taken and the queue is full.
// It is a cheap early check, for a tap handle; [Gate.TurnAway] knows more.
func (g *Gate) Full() bool {
	s := g.load()
	if !s.slow() && s.free() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining || g.fullLocked()
}

func (g *Gate) fullLocked() bool {
	s := g.load()
	return !g.cfg.dryRun && !s.free() && g.cfg.queue.Policy != Block && g.queue.n >= g.cfg.capacity(s.limit())
}

// TurnAway refuses a call, and counts that, if the gate is [Gate.Full] and
// Acquire would refuse the call at once; and also if it would let it take the
// place of one of its own kind just when a waiter has come so recently that it
// will get the next permit in any case. It never blocks. What it does not turn
// away has to ask Acquire.
func (g *Gate) TurnAway(c Call) (why Reason, away bool) {
	if q := g.quotas.Load(); q != nil && g.Full() && q.over(c, time.Now()) {
		why, _ = g.overQuota(c)
		return why, true
	}
	g.mu.Lock()
	c = g.knownLocked(c)
	if why, away = g.turnsAwayLocked(c); away {
		g.window.pressed++
	}
	g.mu.Unlock()
	if away {
		g.countRefusal(c.Class, why, 0)
	}
	return why, away
}

func (g *Gate) turnsAwayLocked(c Call) (why Reason, away bool) {
	switch {
	case g.draining:
		return Draining, true
	case !g.fullLocked():
		return 0, false
	}
	out, why := g.victimLocked(c, g.cfg.capacity(g.load().limit()))
	switch {
	case out == nil:
		return why, true
	case out.class == c.Class && out.tenant.key == c.Tenant:
		return QueueFull, g.now()-g.youngest < g.pace
	}
	return 0, false
}

// Update changes the gate's configuration while calls run, and keeps what it is
// not told to change. A lower limit drains what runs above it; a smaller queue
// refuses those that no longer fit. The name cannot be changed. When an option
// is wrong it returns an error that wraps ErrConfig, and changes nothing.
func (g *Gate) Update(opts ...Option) error {
	from, to, hooks, err := g.update(opts)
	g.limitChanged(hooks, from, to)
	return err
}

func (g *Gate) update(opts []Option) (from, to int, hooks []Hooks, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from = g.window.limit
	err = g.updateLocked(opts)
	return from, g.window.limit, g.cfg.hooks, err
}

func (g *Gate) updateLocked(opts []Option) error {
	next := g.cfg
	next.algorithmSet = false
	next.take(opts)
	if err := g.check(&next); err != nil {
		return err
	}
	g.cfg = next
	g.settleQuotasLocked()
	if next.algorithmSet {
		g.gatherLocked() // what ended before is not the new algorithm's
		g.window.clear(g.now())
		g.peak.Store(int64(g.load().inFlight()))
		g.setLimitLocked(next.initial)
	}
	g.trimLocked()
	if next.dryRun {
		g.releaseWaitersLocked()
	}
	g.dispatchLocked() // classes may have more now
	return nil
}

// releaseWaitersLocked lets every waiter in, whatever the limit.
func (g *Gate) releaseWaitersLocked() {
	now, n := g.now(), g.load().limit()
	for w := g.queue.any(); w != nil; w = g.queue.any() {
		g.grantLocked(w, g.beyondLocked(min(w.cost, n)), now)
	}
}

// Drain refuses every waiter and every later call with Draining; calls that run
// go on. It does not block and cannot be undone. Call it before
// grpc.Server.GracefulStop, which would wait for the whole queue.
func (g *Gate) Drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	for w := g.queue.any(); w != nil; w = g.queue.any() {
		g.refuseLocked(w, Draining)
	}
	g.settleLocked()
}
