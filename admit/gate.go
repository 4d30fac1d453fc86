package admit

import (
	"sync"
	"sync/atomic"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// The methods of the Gate follow a call. They take the lock, wait, and call the hooks. Only a look
// (look.go) takes the lock besides:
//
//   - acquire.go: a call comes. The gate admits it, refuses it, or lets it wait.
//   - wait.go: a call waits until it is admitted or refused, or leaves.
//   - permit.go, handover.go: a call ends, and its permits go to the next one.
//   - learn.go: the limit learns from the calls that ended.
//
// Each of them hands the call to parts that do not know the Gate. permits.go takes permits by the
// advice of package turn, inflight.go counts them without the lock, and recorder.go counts and
// measures calls. pressure.go and quota.go come before all that.

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

	clock   clock
	yield   yielder
	quotas  atomic.Pointer[quotas]  // nil without quotas
	shedder atomic.Pointer[shedder] // nil without pressure
	open    openCalls
	hooks   hookSet
	stalls  atomic.Uint64 // see Stats.SendStalls
	waiters sync.Pool     // of *waiter. Their timers must not leave a testing/synctest bubble.
	record  recorder      // its type says which parts need the lock

	looks     sync.Mutex // held during a look, so that two looks do not share the tenants
	mu        sync.Mutex // guards the fields below
	cfg       config
	permits   permits
	draining  bool
	algorithm ownership
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
	g := &Gate{clock: newClock()}
	g.permits = permits{inUse: &g.inFlight, queue: turn.New(cfg.turns())}
	if err := g.checkLocked(&cfg); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiters.New = func() any { return newWaiter() }
	g.yield.init()
	g.record.init(&g.clock, &g.permits, &cfg)
	g.inFlight.setLimit(cfg.initial)
	g.useConfigLocked(&cfg)
	g.useLockLocked()
	return g, nil
}

// Name returns the gate's name.
func (g *Gate) Name() string {
	return configured(g, func(c *config) string { return c.name })
}

// Limit returns the number of permits. It takes no lock.
func (g *Gate) Limit() int { return g.inFlight.load().limit() }

// InFlight returns the number of permits in use that count against the limit, which is
// Stats.InFlight without Stats.Beyond. It takes no lock.
func (g *Gate) InFlight() int { return g.inFlight.load().inFlight() }

// isZero reports whether New did not make the gate.
func (g *Gate) isZero() bool { return g.permits.queue == nil }

// configured returns a part of the configuration.
func configured[T any](g *Gate, read func(*config) T) T {
	g.mu.Lock()
	defer g.mu.Unlock()
	return read(&g.cfg)
}
