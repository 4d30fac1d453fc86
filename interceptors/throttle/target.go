package throttle

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/interceptors/internal/peers"
	"github.com/weir-go/weir/interceptors/internal/places"
	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// A target counts the calls of one method and class to one target. Calls lock it only while
// the balance is not full.
type target struct {
	places.Place
	throttle *Throttle

	full atomic.Bool   // the balance is full; written with mu held
	send atomic.Uint64 // the bits of the probability with which a call is sent; written with mu held

	allowed, refused, accepted, rejected atomic.Uint64

	mu      sync.Mutex    // guards the fields below
	balance float64       // how many calls the target may refuse; below zero, the binary logarithm of send
	denied  time.Duration // when the target refused the last call
	last    time.Duration // when the last call ended that was sent with a probability
	sendAt  time.Duration // when to send one whatever the probability
	peers   peers.Peers   // of calls that began while the balance was not full
}

// A ticket is permission to send one call.
type ticket struct{ witness *peers.Witness }

// An answer says how the end of a call counts for a throttle.
type answer uint8

const (
	uncounted answer = iota
	taken
	rejection
)

func (t *Throttle) newTarget(p places.Place) *target {
	g := &target{Place: p, throttle: t, balance: float64(t.cfg.Evidence)}
	g.full.Store(true)
	g.send.Store(everyCall)
	return g
}

// everyCall is the bits of the probability 1.
var everyCall = math.Float64bits(1)

// enter returns a ticket for a call, or the error of a refused one.
func (g *target) enter() (ticket, *refusal.Error) {
	if g.full.Load() {
		g.allowed.Add(1)
		return ticket{}, nil
	}
	if bits := g.send.Load(); bits != everyCall && g.throttle.draw() >= math.Float64frombits(bits) {
		if refused := g.refuse(); refused != nil {
			return ticket{}, refused
		}
	}
	g.allowed.Add(1)
	return ticket{&peers.Witness{}}, nil
}

// refuse returns the error of a refused call. It returns nil if no call was sent for so long
// that this one is sent.
func (g *target) refuse() *refusal.Error {
	now := g.throttle.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(now)
	if g.balance >= 0 || now >= g.sendAt {
		g.waitLocked(now)
		return nil
	}
	g.refused.Add(1)
	return throttled.After(g.delayLocked())
}

// waitLocked sets the time at which a call is sent at any probability.
func (g *target) waitLocked(now time.Duration) {
	g.sendAt = now + g.throttle.jittered(g.throttle.cfg.Window/4)
}

// usualDelay is the mean delay of refusals while few calls are refused.
const usualDelay = 100 * time.Millisecond

// delayLocked returns the delay of a refusal.
func (g *target) delayLocked() time.Duration {
	return g.throttle.jittered(min(time.Duration(float64(usualDelay)/math.Exp2(g.balance)), g.throttle.cfg.Window))
}

// ended counts a call that was sent.
func (g *target) ended(t ticket, a answer) {
	switch a {
	case taken:
		g.accepted.Add(1)
		if g.full.Load() {
			return
		}
	case rejection:
		g.rejected.Add(1)
	case uncounted:
		return
	}
	now := g.throttle.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(now)
	if t.witness != nil {
		g.peers.Add(t.witness.Addr(), a == rejection, now, g.throttle.cfg.Window)
	}
	step := g.throttle.stepAt(g.balance)
	if a == taken {
		g.balance += step * (g.throttle.cfg.K - 1)
	} else if g.denied = now; g.balance >= 0 || now-g.last < g.throttle.cfg.Window/4 {
		g.balance -= step // a target that is sent so little is not sent less
	}
	if g.balance < 0 {
		g.last = now
		g.waitLocked(now)
	}
	g.judgeLocked()
}

// stepAt returns the cost of a refused call. The fewer calls are sent, the more each is
// worth, so that a few of them find the way back. With a low K the balance falls in smaller
// steps, because it takes many accepted calls to make up for one.
func (t *Throttle) stepAt(balance float64) float64 {
	if balance > 0 {
		return 1
	}
	eager := min(max(2*(t.cfg.K-1), finestShare), 1)
	return eager * min(finestStep/math.Exp2(balance), coarsestStep)
}

const (
	// finestStep is by how many powers of two the probability changes with a call where
	// nearly all are sent, coarsestStep where few are.
	finestStep, coarsestStep = 0.25, 2
	// finestShare is the least part of these steps.
	finestShare = 0.2
	// leastSend is the binary logarithm of the lowest probability.
	leastSend = -12
)

// forgetLocked forgets refusals that are a window old.
func (g *target) forgetLocked(now time.Duration) {
	if now-g.denied >= g.throttle.cfg.Window && !g.full.Load() {
		g.balance = float64(g.throttle.cfg.Evidence)
		g.judgeLocked()
	}
}

// judgeLocked sets the probability that follows from the balance.
func (g *target) judgeLocked() {
	most := float64(g.throttle.cfg.Evidence)
	switch {
	case g.balance >= most:
		g.balance = most
		g.peers = peers.Peers{}
	case g.balance < 0 && !g.peers.Refuse(1-1/g.throttle.cfg.K):
		g.balance = 0
	}
	g.balance = max(g.balance, leastSend)
	g.full.Store(g.balance == most)
	g.send.Store(math.Float64bits(math.Exp2(min(g.balance, 0))))
}

func (g *target) stats() TargetStats {
	s := TargetStats{
		Target: g.Target, Method: g.Method, Class: g.Class,
		Accepted: g.accepted.Load(), Rejected: g.rejected.Load(),
	}
	s.Allowed, s.Refused = g.allowed.Load(), g.refused.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(g.throttle.now())
	s.Probability = 1 - math.Float64frombits(g.send.Load())
	return s
}

// answerOf returns how a call that ended with err counts.
func answerOf(err error) answer {
	switch {
	case err == nil:
		return taken
	case refusal.Ours(err):
		return uncounted
	}
	st, ok := status.FromError(err)
	if !ok {
		return uncounted
	}
	switch code := st.Code(); {
	case code == codes.Canceled || refusal.FromGRPC(st):
		return uncounted
	case code == codes.Unavailable:
		return rejection
	case code == codes.ResourceExhausted:
		if refusal.Full(st) {
			return rejection
		}
		return uncounted
	default:
		return taken
	}
}

// A stream is the throttle's observer of one stream.
type stream struct {
	target  *target
	ticket  ticket
	counted atomic.Bool
}

// Answered counts the stream.
func (s *stream) Answered(cs grpc.ClientStream) {
	if s.counted.Swap(true) {
		return
	}
	var t ticket
	if s.ticket.witness != nil {
		t.witness = peers.WitnessOf(cs)
	}
	s.target.ended(t, taken)
}

func (s *stream) Ended(err error) {
	if !s.counted.Swap(true) {
		s.target.ended(s.ticket, answerOf(err))
	}
}

func (s *stream) Abandoned() { s.counted.Store(true) }
