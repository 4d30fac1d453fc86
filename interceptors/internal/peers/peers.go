package peers

import (
	"iter"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// A Tally counts calls, failed calls, and the calls that succeeded since the last failure.
type Tally struct{ Calls, Failed, run int }

// Add counts a call.
func (t *Tally) Add(failed bool) {
	t.Calls++
	t.run++
	if failed {
		t.Failed++
		t.run = 0
	}
}

// after returns the sum of a tally and the one before it.
func (t Tally) after(before Tally) Tally {
	run := t.run
	if t.Failed == 0 {
		run += before.run
	}
	return Tally{t.Calls + before.Calls, t.Failed + before.Failed, run}
}

// above is by how many standard deviations more calls failed than the ratio predicts. It is
// negative if fewer did.
func (t Tally) above(ratio float64) float64 {
	n := float64(t.Calls)
	return (float64(t.Failed) - ratio*n) / math.Sqrt(max(ratio*(1-ratio)*n, 1e-9))
}

const (
	// certainty is the number of standard deviations that chance hardly ever explains.
	certainty = 2
	// backRun is how many calls in a row succeed at an address that has recovered.
	backRun = 5
)

// Sick reports whether more calls fail than the ratio allows. That is so if all calls
// failed, or if more failed than chance explains.
func (t Tally) Sick(ratio float64) bool {
	return t.Calls > 0 && (t.Failed == t.Calls || t.above(ratio) > certainty)
}

// mostPeers bounds the addresses that are told apart. Later ones share a tally.
const mostPeers = 256

// Peers holds a tally for each address that calls of a target went to. An interceptor learns
// the address only after the call, so it cannot avoid a failing one. But it can see that
// others do not fail. The zero Peers is empty. It has no lock of its own.
type Peers struct {
	began     time.Duration
	now, last map[string]Tally // this half of the window and the one before
}

// Add counts a call to an address at a time.
func (p *Peers) Add(addr string, failed bool, now, window time.Duration) {
	p.Turn(now, window)
	if p.now == nil {
		p.now = map[string]Tally{}
	}
	t, ok := p.now[addr]
	if !ok && len(p.now) >= mostPeers {
		addr = ""
		t = p.now[addr]
	}
	t.Add(failed)
	p.now[addr] = t
}

// Turn forgets the calls that are a window old.
func (p *Peers) Turn(now, window time.Duration) {
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
	// fewEach is the mean number of calls that each of many addresses needs to be judged.
	fewEach = 3
)

// AllSick reports whether calls fail at each address, and none seems to have recovered.
// Addresses with few calls are judged together, once they had enough, unless one of them
// never failed.
func (p *Peers) AllSick(ratio float64, enough int) bool {
	var few Tally
	addresses := 0
	alone := p.Count() == 1
	for _, t := range p.all() {
		switch {
		case t.Calls >= fewCalls:
			if !t.Sick(ratio) || t.run >= backRun {
				return false
			}
		case t.Calls > 1 && t.Failed == 0 && !alone:
			return false
		default:
			few.Calls += t.Calls
			few.Failed += t.Failed
			addresses++
		}
	}
	return alone || addresses == 0 || few.Calls >= max(enough, fewEach*addresses) && few.Sick(ratio)
}

const (
	// fewProven is the least number of calls that prove that an address accepts them.
	fewProven = 4
	// eachProven is how many calls each address needs before all are judged to refuse.
	// mostProven bounds the sum over all addresses.
	eachProven, mostProven = 6, 40
)

// Refuse reports whether no address clearly fails less often than the ratio.
func (p *Peers) Refuse(ratio float64) bool {
	calls, addresses := 0, 0
	for _, t := range p.all() {
		if t.Calls >= fewProven && t.above(ratio) <= -certainty {
			return false
		}
		calls += t.Calls
		addresses++
	}
	return addresses <= 1 || calls >= min(eachProven*addresses, mostProven)
}

// All returns each address with its calls.
func (p *Peers) All() iter.Seq2[string, Tally] { return p.all() }

// all is All.
func (p *Peers) all() iter.Seq2[string, Tally] {
	return func(yield func(string, Tally) bool) {
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

// Count returns the number of addresses, at least 1.
func (p *Peers) Count() int {
	n := 0
	for range p.all() {
		n++
	}
	return max(n, 1)
}

// A Witness learns which address a call went to. A nil Witness learns nothing.
type Witness struct{ peer peer.Peer }

// WitnessOf returns a Witness of a client's stream that was answered and has not ended, before
// gRPC informs another one.
func WitnessOf(s grpc.ClientStream) *Witness {
	w := &Witness{}
	if p, ok := peer.FromContext(s.Context()); ok {
		w.peer = *p
	}
	return w
}

// Options returns the call options with which gRPC informs the witness.
func (w *Witness) Options(opts []grpc.CallOption) []grpc.CallOption {
	if w == nil {
		return opts
	}
	return append(slices.Clip(opts), grpc.Peer(&w.peer))
}

// Addr names the connection of the call, once the call has ended. It includes the local
// address, because there may be several servers behind one remote address. It is empty for a
// call without a connection.
func (w *Witness) Addr() string {
	if w == nil || w.peer.Addr == nil {
		return ""
	}
	if w.peer.LocalAddr == nil {
		return w.peer.Addr.String()
	}
	return w.peer.Addr.String() + " " + w.peer.LocalAddr.String()
}

// InMemory reports whether the call used a connection in memory. Its address is the same as
// that of others.
func (w *Witness) InMemory() bool {
	if w == nil || w.peer.Addr == nil {
		return false
	}
	network := w.peer.Addr.Network()
	return network == "bufconn" || network == "pipe"
}
