package interceptors

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A circuit is the breaker of one method of one target: gobreaker's, which counts,
// and what that leaves open. gobreaker forgets a call that takes longer than its
// window, so a closed circuit asks it for leave only when a call has ended. It has
// one time for which it stays open, so how long is decided here. And it calls its
// hook with its lock held, so changes are kept here until nothing is locked.
type circuit struct {
	place
	breaker *Breaker

	era   atomic.Uint64 // see eraOf; written with mu held
	until atomic.Int64  // when an open circuit may be probed, on the breaker's clock

	allowed, refused, failed, opened atomic.Uint64

	untold atomic.Bool // there are changes to tell

	mu      sync.Mutex // guards what follows
	cb      *gobreaker.TwoStepCircuitBreaker[struct{}]
	probes  []*probe // those that hold one of gobreaker's places, oldest first
	changes []change // not told yet
	telling bool     // somebody is
}

// An era is the time between two changes of state: how many changes there were, and
// the state. A call that began in another era says nothing about this one.
type era = uint64

func eraOf(n uint64, s BreakerState) era { return n<<2 | uint64(s) }
func stateOf(e era) BreakerState         { return BreakerState(e & 3) }

// A probe is a call that was let through a half-open circuit.
type probe struct {
	began time.Duration
	done  func(error) // nil when its place was given to another
}

// A pass is leave to make one call.
type pass struct {
	era   era
	probe *probe
}

type change struct{ from, to BreakerState }

// manyChanges is how many changes are kept for a hook that hangs.
const manyChanges = 64

// What gobreaker is told of a call.
var (
	errExcluded = errors.New("excluded")
	results     = [...]error{Excluded: errExcluded, Healthy: nil, Unwell: errors.New("unwell")}
)

func (b *Breaker) newCircuit(p place) *circuit {
	c := &circuit{place: p, breaker: b}
	period := (b.cfg.Window + 9) / 10
	c.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(b.cfg.Probes),
		Interval:     b.cfg.Window,
		BucketPeriod: period,
		Timeout:      1, // the circuit has its own
		ReadyToTrip: func(n gobreaker.Counts) bool {
			calls := n.TotalSuccesses + n.TotalFailures
			return int(calls) >= b.cfg.MinCalls && float64(n.TotalFailures) >= b.cfg.FailureRatio*float64(calls)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) { c.changedLocked(states[from], states[to]) },
		IsExcluded:    func(err error) bool { return err == errExcluded }, //nolint:errorlint // it comes from here
	})
	return c
}

var states = [...]BreakerState{
	gobreaker.StateClosed:   BreakerClosed,
	gobreaker.StateHalfOpen: BreakerHalfOpen,
	gobreaker.StateOpen:     BreakerOpen,
}

// changedLocked is called by gobreaker, within calls that the circuit makes with its
// own lock held.
func (c *circuit) changedLocked(from, to BreakerState) {
	if to == BreakerOpen {
		c.until.Store(int64(c.breaker.now() + c.breaker.jittered(c.breaker.cfg.OpenFor)))
		c.opened.Add(1)
	}
	c.era.Store(eraOf(c.era.Load()>>2+1, to))
	c.probes = nil
	if len(c.changes) == manyChanges {
		c.changes = c.changes[1:]
	}
	c.changes = append(c.changes, change{from, to})
	c.untold.Store(true)
}

// enter gives leave to make a call, or says why not. Whoever got leave returns it
// with leave; in any case tell is to be called when nothing can get lost.
func (c *circuit) enter(now time.Duration) (pass, *stopped) {
	if p, refusal, ok := c.decided(now); ok {
		return p, refusal
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, refusal, ok := c.decided(now); ok { // it has changed
		return p, refusal
	}
	p := c.probeLocked(now)
	if p == nil {
		c.refused.Add(1)
		return pass{}, circuitOpen.after(c.breaker.cfg.OpenFor / 10) // about when the probes have ended
	}
	c.allowed.Add(1)
	return pass{era: c.era.Load(), probe: p}, nil
}

// decided lets a call pass or refuses it where that needs no lock: unless the circuit
// is half-open, or has been open for long enough.
func (c *circuit) decided(now time.Duration) (p pass, refusal *stopped, ok bool) {
	e := c.era.Load()
	left := time.Duration(c.until.Load()) - now
	switch {
	case stateOf(e) == BreakerClosed:
		c.allowed.Add(1)
		return pass{era: e}, nil, true
	case stateOf(e) == BreakerOpen && left > 0:
		c.refused.Add(1)
		return pass{}, circuitOpen.after(left), true
	default:
		return pass{}, nil, false
	}
}

// probeLocked makes a call a probe, if there is a place for one.
func (c *circuit) probeLocked(now time.Duration) *probe {
	done, err := c.cb.Allow() // it makes an open circuit half-open
	if err != nil && len(c.probes) > 0 && now-c.probes[0].began >= c.breaker.cfg.OpenFor {
		late := c.probes[0]
		c.giveBackLocked(late, errExcluded)
		done, err = c.cb.Allow()
	}
	if err != nil {
		return nil
	}
	p := &probe{began: now, done: done}
	c.probes = append(c.probes, p)
	return p
}

// giveBackLocked gives a probe's place back, with its result.
func (c *circuit) giveBackLocked(p *probe, result error) {
	done := p.done
	p.done = nil
	c.probes = slices.DeleteFunc(c.probes, func(o *probe) bool { return o == p })
	done(result) // which may begin another era
}

// leave counts a call that has ended. For calls of other eras gobreaker is not told.
func (c *circuit) leave(p pass, v Verdict) {
	if v == Unwell {
		c.failed.Add(1)
	}
	if v == Excluded && p.probe == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.era.Load() != p.era {
		return
	}
	result := results[v]
	if p.probe != nil {
		c.settleLocked(p.probe, result)
	} else if done, err := c.cb.Allow(); err == nil { // a closed circuit does
		done(result)
	}
}

// settleLocked ends a probe. One that was late has no place any more; its result
// still counts: it takes a free place, or that of the oldest, which is late then.
func (c *circuit) settleLocked(p *probe, result error) {
	if p.done == nil {
		if result == errExcluded { //nolint:errorlint // it comes from here
			return
		}
		if done, err := c.cb.Allow(); err == nil {
			p.done = done
		} else if len(c.probes) > 0 {
			oldest := c.probes[0]
			p.done, oldest.done = oldest.done, nil
			c.probes = c.probes[1:]
		} else {
			return
		}
	}
	c.giveBackLocked(p, result)
}

// tell tells the hooks what has changed. It is called without the lock; when
// somebody is telling already, that one goes on.
func (c *circuit) tell() {
	if !c.untold.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.telling {
		return
	}
	c.telling = true
	defer func() { c.telling = false }() // also when a hook ends the goroutine
	for len(c.changes) > 0 {
		ch := c.changes[0]
		c.changes = c.changes[1:]
		c.untold.Store(len(c.changes) > 0)
		c.tellOneUnlocked(ch)
	}
}

// tellOneUnlocked is called with the lock, and has it again when it returns.
func (c *circuit) tellOneUnlocked(ch change) {
	c.mu.Unlock()
	defer c.mu.Lock()
	c.breaker.changed(c, ch)
}

// stats takes no lock. What follows from something else is read before it: none has
// failed that was not allowed, and what is open has opened.
func (c *circuit) stats() CircuitStats {
	s := CircuitStats{Target: c.target, Method: c.method, State: stateOf(c.era.Load()), Failed: c.failed.Load()}
	s.Opened, s.Allowed, s.Refused = c.opened.Load(), c.allowed.Load(), c.refused.Load()
	return s
}

// A breakerStream is the breaker's observer of one stream.
type breakerStream struct {
	*circuit
	pass pass
	ctx  context.Context
	seen atomic.Bool // headers or a message
	left atomic.Bool
}

func (s *breakerStream) answered() {
	if !s.seen.Swap(true) && s.pass.probe != nil {
		s.leaveOnce(Healthy)
	}
}

func (s *breakerStream) ended(err error) {
	if s.left.Load() { // WithVerdict's function is asked once
		return
	}
	v := s.breaker.verdict(s.ctx, err)
	if v == Unwell && s.seen.Load() && status.Code(err) == codes.DeadlineExceeded && s.breaker.verdictOf == nil {
		v = Excluded // it was to last until its deadline
	}
	s.leaveOnce(v)
}

func (s *breakerStream) abandoned() { s.leaveOnce(Excluded) }

func (s *breakerStream) leaveOnce(v Verdict) {
	if s.left.Swap(true) {
		return
	}
	s.leave(s.pass, v)
	s.tell()
}
