package breaker

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/weir-go/weir/interceptors/internal/latency"
	"github.com/weir-go/weir/interceptors/internal/peers"
	"github.com/weir-go/weir/interceptors/internal/places"
	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// A circuit is the breaker of one method of one target. gobreaker counts calls and holds the
// state; the circuit decides the rest.
//
//   - gobreaker forgets a call that takes longer than its window. So a closed circuit asks
//     it for leave only when a call has ended.
//   - gobreaker closes after successes in a row. So the circuit judges the probes and
//     tells gobreaker the verdict.
//   - gobreaker has a fixed time for which it stays open. So the circuit keeps its own.
//   - gobreaker calls its hook with its lock held. So the circuit keeps changes until
//     nothing is locked.
type circuit struct {
	places.Place
	breaker *Breaker
	pace    latency.Estimate // of the method; a unary call until its end, a stream until its answer
	several bool             // the target may have several addresses

	era     atomic.Uint64 // see eraOf; written with mu held
	until   atomic.Int64  // when an open circuit may be probed, on the breaker's clock
	watched atomic.Int64  // until when each call has a witness, on the same clock
	openAt  atomic.Int64  // when the circuit opened last, on the same clock

	allowed, ended, refused, failed, opened atomic.Uint64

	untold atomic.Bool // there are changes to tell

	mu        sync.Mutex // guards the fields below
	cb        *gobreaker.TwoStepCircuitBreaker[struct{}]
	peers     peers.Peers    // of the calls of a closed circuit
	opener    []AddressStats // of the calls that opened it last
	suspected time.Duration  // when the first of the failures that are remembered ended
	streak    streak         // of failures
	anonymous bool           // an address was seen that several servers may share
	trial     trial          // of the probes of a half-open circuit
	probes    []*probe       // in flight, oldest first
	changes   []change       // not told yet
	telling   bool           // a goroutine is telling them
}

// An era is the time between two changes of state. It holds the number of changes and the
// state. A call that began in another era shows nothing about this one.
type era = uint64

func eraOf(n uint64, s State) era { return n<<2 | uint64(s) }
func stateOf(e era) State         { return State(e & 3) }

// A probe is a call that a half-open circuit sent.
type probe struct{ began time.Duration }

// A ticket is permission to send one call.
type ticket struct {
	era     era
	began   time.Duration
	probe   *probe
	witness *peers.Witness
}

type change struct{ from, to State }

// A streak counts calls that failed in a row, in the order in which they began, because
// calls that hang end last.
type streak struct {
	failed int
	since  time.Duration // when the first of them ended
	well   time.Duration // when the latest call began that did not fail
}

func (s *streak) add(failed bool, began, now time.Duration) {
	switch {
	case !failed:
		*s = streak{well: max(s.well, began)}
	case began > s.well:
		if s.failed++; s.failed == 1 {
			s.since = now
		}
	}
}

// manyChanges bounds the changes that are kept while a hook hangs.
const manyChanges = 64

// The results of calls that are reported to gobreaker, besides nil.
var (
	errExcluded = errors.New("excluded")
	errUnwell   = errors.New("unwell")
)

func (b *Breaker) newCircuit(p places.Place) *circuit {
	c := &circuit{Place: p, breaker: b}
	// The passthrough resolver knows one address, as do the tests without a connection.
	c.several = p.Target != "" && !strings.HasPrefix(p.Target, "passthrough:")
	period := (b.cfg.Window + 9) / 10
	c.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   1, // the first verdict that it is told decides
		Interval:      b.cfg.Window,
		BucketPeriod:  period,
		Timeout:       1, // the circuit has its own
		ReadyToTrip:   c.tripsLocked,
		OnStateChange: func(_ string, from, to gobreaker.State) { c.changedLocked(states[from], states[to]) },
		IsExcluded:    func(err error) bool { return err == errExcluded }, //nolint:errorlint // it comes from here
	})
	return c
}

var states = [...]State{
	gobreaker.StateClosed:   Closed,
	gobreaker.StateHalfOpen: HalfOpen,
	gobreaker.StateOpen:     Open,
}

// tripsLocked reports whether a closed circuit opens. While one address serves its calls,
// refusing would lose them, because the interceptor cannot choose the address.
func (c *circuit) tripsLocked(n gobreaker.Counts) bool {
	cfg := &c.breaker.cfg
	all := peers.Tally{Calls: int(n.TotalSuccesses + n.TotalFailures), Failed: int(n.TotalFailures)}
	if all.Calls < cfg.MinCalls || !all.Sick(cfg.FailureRatio) {
		return false
	}
	now := c.breaker.now()
	since := c.suspected
	if c.mixed() {
		if c.streak.failed < cfg.MinCalls {
			return false
		}
		since = c.streak.since
	}
	c.peers.Turn(now, cfg.Window)
	// Calls often fail sooner than they succeed, and some servers are reached sooner than
	// others. They get the time to show it.
	if (c.peers.Count() > 1 || c.allowed.Load() > c.ended.Load()) && now-since < c.patience() {
		return false
	}
	return c.peers.AllSick(cfg.FailureRatio, cfg.MinCalls)
}

// mixed reports whether calls may go to several servers with the same address.
func (c *circuit) mixed() bool { return c.anonymous && c.several }

// patience is the time after which no answer is expected to a call in flight.
func (c *circuit) patience() time.Duration {
	mean, dev := c.pace.Usual()
	if mean == 0 {
		return unknownPace
	}
	return max(2*mean, mean+4*dev)
}

// changedLocked is called by gobreaker during calls that the circuit makes with its own lock
// held.
func (c *circuit) changedLocked(from, to State) {
	if to == Open {
		c.until.Store(int64(c.breaker.now() + c.breaker.jittered(c.breaker.cfg.OpenFor)))
		c.openAt.Store(int64(c.breaker.now()))
		c.opened.Add(1)
		if from == Closed {
			c.opener = c.addressesLocked()
			c.trial.known = min(c.peers.Count(), mostProbed)
		}
		if c.mixed() {
			c.trial.known = mixedServers
		}
		c.peers, c.streak = peers.Peers{}, streak{}
	}
	c.trial.begin()
	c.era.Store(eraOf(c.era.Load()>>2+1, to))
	c.probes = nil
	if len(c.changes) == manyChanges {
		c.changes = c.changes[1:]
	}
	c.changes = append(c.changes, change{from, to})
	c.untold.Store(true)
}

// enter returns a ticket for a call, or the error of a refused one. The caller returns the
// ticket with leave. In both cases it calls tell last and without locks held.
func (c *circuit) enter(now time.Duration) (ticket, *refusal.Error) {
	if p, refused, ok := c.decided(now); ok {
		return p, refused
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, refused, ok := c.decided(now); ok { // it has changed
		return p, refused
	}
	p := c.probeLocked(now)
	if p == nil {
		c.refused.Add(1)
		return ticket{}, circuitOpen.After(c.breaker.cfg.OpenFor / 10) // about when the probes have ended
	}
	c.allowed.Add(1)
	return ticket{c.era.Load(), now, p, &peers.Witness{}}, nil
}

// decided sends or refuses a call if that needs no lock. It needs one if the circuit is
// half-open, or was open for long enough.
func (c *circuit) decided(now time.Duration) (p ticket, refused *refusal.Error, ok bool) {
	e := c.era.Load()
	left := time.Duration(c.until.Load()) - now
	switch {
	case stateOf(e) == Closed:
		c.allowed.Add(1)
		p.era, p.began = e, now
		if now < time.Duration(c.watched.Load()) {
			p.witness = &peers.Witness{}
		}
		return p, nil, true
	case stateOf(e) == Open && left > 0:
		c.refused.Add(1)
		return ticket{}, circuitOpen.After(left), true
	default:
		return ticket{}, nil, false
	}
}

// tellLocked reports the result of a call to gobreaker, and returns whether gobreaker took
// it. A new era may begin.
func (c *circuit) tellLocked(result error) bool {
	done, err := c.cb.Allow()
	if err != nil {
		return false
	}
	done(result)
	return true
}

// leave counts a call that has ended.
func (c *circuit) leave(p ticket, v Verdict) {
	c.ended.Add(1)
	c.count(p, v)
}

// count counts the verdict on a call. gobreaker does not learn of calls of other eras.
func (c *circuit) count(p ticket, v Verdict) {
	if v == Excluded && p.probe == nil {
		return
	}
	var now time.Duration
	if v == Unwell || p.witness != nil || p.probe != nil { // no other calls need the time
		now = c.breaker.now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v == Unwell {
		c.failed.Add(1)
		if now >= time.Duration(c.watched.Swap(int64(now+c.breaker.cfg.Window))) {
			c.suspected = now
		}
	}
	if c.era.Load() != p.era {
		return
	}
	c.anonymous = c.anonymous || p.witness.InMemory()
	if p.probe == nil {
		c.countLocked(p, v == Unwell, now)
	} else {
		c.probedLocked(p, v, now)
	}
}

// countLocked counts a call of a closed circuit.
func (c *circuit) countLocked(p ticket, failed bool, now time.Duration) {
	if p.witness != nil {
		c.peers.Add(p.witness.Addr(), failed, now, c.breaker.cfg.Window)
	}
	c.streak.add(failed, p.began, now)
	if failed {
		c.tellLocked(errUnwell)
	} else {
		c.tellLocked(nil)
	}
}

// tell delivers changes to the hooks. It is called without the lock. If another goroutine
// delivers already, that one goes on.
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

// tellOneUnlocked is called with the lock held, and returns with it held.
func (c *circuit) tellOneUnlocked(ch change) {
	c.mu.Unlock()
	defer c.mu.Lock()
	c.breaker.changed(c, ch)
}

// stats takes no lock. It reads effects before their causes, so that the snapshot has no
// failed call that was not allowed, and no open circuit that has not opened.
func (c *circuit) stats() CircuitStats {
	s := CircuitStats{Target: c.Target, Method: c.Method, State: stateOf(c.era.Load()), Failed: c.failed.Load()}
	s.Opened, s.Allowed, s.Refused = c.opened.Load(), c.allowed.Load(), c.refused.Load()
	if s.Opened > 0 {
		s.OpenedAgo = max(0, c.breaker.now()-time.Duration(c.openAt.Load()))
	}
	if s.State == Open {
		s.ProbeIn = max(0, time.Duration(c.until.Load())-c.breaker.now())
	}
	return s
}
