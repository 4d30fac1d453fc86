package rules

import (
	"time"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

func drain() *creditpb.Control { return demand(&creditpb.Request{Drain: true}) }

// Drained reads until Drained or a terminal, and returns nil for a terminal. check checks the numbers.
func (p *Peer) Drained() *creditpb.Drained {
	for p.last = nil; p.last == nil && p.terminal == nil; {
		p.Recv("Drained")
	}
	return p.last
}

// drains are the rules on credit that is given back.
var drains = []Rule{{
	Number: 59, Name: "drain when idle",
	Proves: "An idle sender answers a drain within 100 ms. It then has no credit, and continues with later demand.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 50, PaceMs: 200}, initial(10, allFeatures...))
		start := time.Now()
		p.Say(drain())
		d := p.Drained()
		if took := time.Since(start); t.Exact && took > 100*time.Millisecond {
			t.Fatalf("got Drained after %v, want it within 100ms", took)
		}
		if d.GetBurned() == 0 {
			t.Fatalf("got Drained with burned 0, want the credit of a sender that paces its elements")
		}
		p.Quiet()
		p.Request(5)
		p.Want(5)
		p.Quiet()
	},
}, {
	Number: 60, Name: "drain in full flow",
	Proves: "sent + burned is the granted sum. This holds for a hundred drains in full flow, with demand in the drain and after it.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 1_000_000}, initial(50, allFeatures...))
		for range 100 {
			p.Want(1)
			p.Request(10)
			p.Say(demand(&creditpb.Request{N: 20, Drain: true}))
			p.Drained()
			p.Request(30)
		}
		p.Want(30)
		p.Quiet()
	},
}, {
	Number: 61, Name: "after a drain",
	Proves: "A draining receiver makes no demand before the answer and learns the burned credit. After the answer, one more element " +
		"is CREDIT_EXCEEDED. A wrong number in the answer is COUNT_MISMATCH, and an answer without a drain is UNEXPECTED_FRAME.",
	Run: func(t *T) {
		draining := func() *Peer {
			p := t.Receiver(&conformancepb.Receive{Requests: []int64{10}, DrainAfter: after(3)}, &creditpb.Open{Features: allFeatures})
			p.Flow(3)
			for !p.Recv("a Request with drain").Control.GetRequest().GetDrain() {
			}
			return p
		}
		p := draining()
		p.Elements(2) // on their way
		p.GrantedAtMost(10)
		p.Say(drained(5, 5))
		p.Quiet()
		p.Elements(1)
		r := p.Violation("CREDIT_EXCEEDED")
		if t.received(r, 5); r != nil && r.GetBurned() != 5 {
			t.Fatalf("got %d burned reported, want 5", r.GetBurned())
		}
		p = draining()
		p.Say(drained(4, 6))
		p.Violation("COUNT_MISMATCH")
		p = t.Receiver(&conformancepb.Receive{Window: 4}, &creditpb.Open{Features: allFeatures})
		p.Say(drained(0, 4))
		p.Violation("UNEXPECTED_FRAME")
	},
}, {
	Number: 62, Name: "drain against Complete",
	Proves: "If a drain and Complete cross, Complete is the answer and no Drained follows it. A receiver accepts that.",
	Run: func(t *T) {
		for n := range int64(t.times(200)) {
			p := t.Sender(&conformancepb.Send{Count: 3}, initial(3+n%2, allFeatures...))
			p.Want(n % 4)
			p.Say(drain())
			if p.Drained() != nil {
				p.Request(3)
			}
			p.Complete(3)
			p.Say(demand(&creditpb.Request{Consumed: 3}))
			p.Leave()
		}
		p := t.Receiver(&conformancepb.Receive{Requests: []int64{10}, DrainAfter: after(3)}, &creditpb.Open{Features: allFeatures})
		p.Flow(3)
		p.Elements(1)
		p.Say(complete(4))
		p.Leave()
		p.Received(4, inOrder) // the drain did not wait forever
	},
}}
