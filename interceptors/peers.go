package interceptors

import (
	"iter"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// A tally counts calls, how many of them failed, and how many went well since the last one
// that failed.
type tally struct{ calls, failed, run int }

func (t *tally) add(failed bool) {
	t.calls++
	t.run++
	if failed {
		t.failed++
		t.run = 0
	}
}

// after returns the sum of a tally and the one before it.
func (t tally) after(before tally) tally {
	run := t.run
	if t.failed == 0 {
		run += before.run
	}
	return tally{t.calls + before.calls, t.failed + before.failed, run}
}

// above is the number of standard deviations by which more calls failed than the ratio
// says; below zero, fewer did.
func (t tally) above(ratio float64) float64 {
	n := float64(t.calls)
	return (float64(t.failed) - ratio*n) / math.Sqrt(max(ratio*(1-ratio)*n, 1e-9))
}

const (
	// certainty is the number of standard deviations that chance hardly ever explains.
	certainty = 2
	// backRun is how many calls to an address go well in a row when it is back.
	backRun = 5
)

// sick reports whether more calls fail than the ratio says, beyond doubt: by more than
// chance explains, or all of them.
func (t tally) sick(ratio float64) bool {
	return t.calls > 0 && (t.failed == t.calls || t.above(ratio) > certainty)
}

// mostPeers bounds how many addresses are told apart; later ones share a tally.
const mostPeers = 256

// peers holds a tally for each address that calls of a target went to. An interceptor
// learns the address only afterwards, so it cannot avoid the one that fails. It can see
// that not all of them do. The zero peers is empty. Lock it from outside.
type peers struct {
	began     time.Duration
	now, last map[string]tally // this half of the window and the one before
}

// add counts a call to an address at a time.
func (p *peers) add(addr string, failed bool, now, window time.Duration) {
	p.turn(now, window)
	if p.now == nil {
		p.now = map[string]tally{}
	}
	t, ok := p.now[addr]
	if !ok && len(p.now) >= mostPeers {
		addr = ""
		t = p.now[addr]
	}
	t.add(failed)
	p.now[addr] = t
}

func (p *peers) turn(now, window time.Duration) {
	switch half := window / 2; {
	case now-p.began >= 2*half:
		p.began, p.last, p.now = now, nil, nil
	case now-p.began >= half:
		p.began, p.last, p.now = now, p.now, nil
	}
}

const (
	// fewCalls is how many calls to one address prove nothing, even if all of them fail.
	fewCalls = 5
	// fewEach is how many of them it takes on average, if there are many addresses.
	fewEach = 3
)

// allSick reports whether calls fail at each address, and none seems to be back. Addresses
// with few calls are judged together, once they had enough, unless one never failed.
func (p *peers) allSick(ratio float64, enough int) bool {
	var few tally
	addresses := 0
	alone := p.count() == 1
	for _, t := range p.all() {
		switch {
		case t.calls >= fewCalls:
			if !t.sick(ratio) || t.run >= backRun {
				return false
			}
		case t.calls > 1 && t.failed == 0 && !alone:
			return false
		default:
			few.calls += t.calls
			few.failed += t.failed
			addresses++
		}
	}
	return alone || addresses == 0 || few.calls >= max(enough, fewEach*addresses) && few.sick(ratio)
}

const (
	// fewProven is the least number of calls that prove that an address accepts them.
	fewProven = 4
	// eachProven is how many calls each address should have had before all of them are
	// said to refuse, and mostProven how many all of them together, however many there are.
	eachProven, mostProven = 6, 40
)

// refuse reports whether no address clearly fails less than the ratio says.
func (p *peers) refuse(ratio float64) bool {
	calls, addresses := 0, 0
	for _, t := range p.all() {
		if t.calls >= fewProven && t.above(ratio) <= -certainty {
			return false
		}
		calls += t.calls
		addresses++
	}
	return addresses <= 1 || calls >= min(eachProven*addresses, mostProven)
}

// all returns each address with its calls.
func (p *peers) all() iter.Seq2[string, tally] {
	return func(yield func(string, tally) bool) {
		for addr, t := range p.now {
			if !yield(addr, t.after(p.last[addr])) {
				return
			}
		}
		for addr, t := range p.last {
			if _, both := p.now[addr]; !both && !yield(addr, t) {
				return
			}
		}
	}
}

// count returns how many addresses there are, at least 1.
func (p *peers) count() int {
	n := 0
	for range p.all() {
		n++
	}
	return max(n, 1)
}

// A witness learns which address a call went to. A nil witness learns nothing.
type witness struct{ peer peer.Peer }

// options returns the call options that tell the witness.
func (w *witness) options(opts []grpc.CallOption) []grpc.CallOption {
	if w == nil {
		return opts
	}
	return append(slices.Clip(opts), grpc.Peer(&w.peer))
}

// addr names the connection that the call went over, once the call has ended. The local
// address is part of it: behind one remote address there may be several servers. It is
// empty for a call that found no connection.
func (w *witness) addr() string {
	if w == nil || w.peer.Addr == nil {
		return ""
	}
	if w.peer.LocalAddr == nil {
		return w.peer.Addr.String()
	}
	return w.peer.Addr.String() + " " + w.peer.LocalAddr.String()
}

// inMemory reports whether the call went over a connection in memory, whose address
// does not tell it from others.
func (w *witness) inMemory() bool {
	if w == nil || w.peer.Addr == nil {
		return false
	}
	network := w.peer.Addr.Network()
	return network == "bufconn" || network == "pipe"
}
