package rules

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// nothing is a sender without elements that waits for the end of the stream.
func nothing() *conformancepb.Send {
	return &conformancepb.Send{Ending: conformancepb.Ending_ENDING_NOTHING}
}

// both runs f with an end that sends and then with an end that receives.
func (t *T) both(o *creditpb.Open, f func(p *Peer)) {
	f(t.Sender(nothing(), o))
	f(t.Receiver(&conformancepb.Receive{Window: 4}, o))
}

// unknown returns Controls of unknown kinds. One has a kind of a later version, and one has none.
func unknown() []*creditpb.Control {
	later := &creditpb.Control{}
	later.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), []byte("later")))
	return []*creditpb.Control{later, {}}
}

// badReceivers are the rules for senders with receivers that break the protocol or ask a lot.
var badReceivers = []Rule{{
	Number: 16, Name: "a request for none",
	Proves: "n = 0 with neither drain nor consumed is INVALID_DEMAND.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(1))
		p.Want(1)
		p.Request(0)
		p.Violation("INVALID_DEMAND")
	},
}, {
	Number: 17, Name: "a negative request",
	Proves: "n = -1 and the smallest n are INVALID_DEMAND, also in Open.",
	Run: func(t *T) {
		for _, n := range []int64{-1, math.MinInt64} {
			p := t.Sender(&conformancepb.Send{Count: 9}, nil)
			p.Request(n)
			p.Violation("INVALID_DEMAND")
			p = t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}})
			p.Greet(opening(p.defaults(initial(n))))
			p.Violation("INVALID_DEMAND")
		}
	},
}, {
	Number: 18, Name: "no demand in Open is none",
	Proves: "Without Open.initial there is no demand. With it, its n is the demand.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, nil)
		p.Quiet()
		p = t.Sender(&conformancepb.Send{Count: 9}, initial(4))
		p.Want(4)
		p.Quiet()
	},
}, {
	Number: 19, Name: "unbounded demand",
	Proves: "A demand of 2^63-1 brings all elements. A sender with a largest credit uses that much at a time and the rest later, or " +
		"rejects the demand with DEMAND_TOO_LARGE.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 1000}, nil)
		p.Request(unbounded)
		p.Complete(1000)
		p.Leave()
		for _, n := range []int64{unbounded, 25} {
			p = t.Sender(&conformancepb.Send{Count: 25, PaceMs: 10, MaxPeerCredit: 10, Ending: conformancepb.Ending_ENDING_NOTHING}, nil)
			p.Request(n)
			p.Want(5)
			p.Say(heartbeat(true))
			if b := p.Heartbeat(); b.GetCredit() > 10 {
				t.Fatalf("got a credit of %d, want at most 10", b.GetCredit())
			}
			p = t.Sender(&conformancepb.Send{Count: 25, MaxPeerCredit: 10}, nil)
			p.Request(n)
			p.Complete(25)
			p.Leave()
		}
		p = t.Sender(&conformancepb.Send{Count: 1000, MaxPeerCredit: 10, RejectBeyond: true}, nil)
		p.Request(10)
		p.Want(10)
		p.Request(11)
		p.Violation("DEMAND_TOO_LARGE")
	},
}, {
	Number: 20, Name: "sums saturate",
	Proves: "Demand with a sum above 2^63-1 is unbounded demand, and no violation.",
	Run: func(t *T) {
		for _, n := range []int64{unbounded, unbounded - 1, 1 << 62} {
			p := t.Sender(&conformancepb.Send{Count: 500}, nil)
			p.Say(request(n), request(n))
			p.Complete(500)
			p.Leave()
		}
	},
}, {
	Number: 21, Name: "later demand never lowers unbounded",
	Proves: "Unbounded demand stays unbounded after some elements and after request(1).",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 500, PaceMs: 1, Ending: conformancepb.Ending_ENDING_NOTHING}, nil)
		p.Request(unbounded)
		p.Want(1)
		p.Say(heartbeat(true))
		if got := p.Heartbeat().GetCredit(); got != unbounded {
			t.Fatalf("got a heartbeat with credit %d after %d elements, want %d still", got, p.got, int64(unbounded))
		}
		p = t.Sender(&conformancepb.Send{Count: 500, PaceMs: 1}, nil)
		p.Request(unbounded)
		p.Want(1)
		p.Request(1)
		p.Request(unbounded)
		p.Complete(500)
		p.Leave()
	},
}, {
	Number: 22, Name: "a flood of requests",
	Proves: "A million requests to a sender with nothing to send, or heartbeats to a receiver, soon end with CONTROL_FLOOD. A " +
		"thousand at once do not.",
	Run: func(t *T) {
		p := t.Sender(nothing(), nil)
		for range 1000 {
			p.Request(1)
		}
		p.Quiet()
		flood(p, request(1))
		flood(t.Receiver(&conformancepb.Receive{Window: 4}, nil), heartbeat(false))
	},
}, {
	Number: 23, Name: "a request for each element",
	Proves: "request(1) after each element, at full rate, is no flood.",
	Run: func(t *T) {
		n := int64(t.times(20_000))
		p := t.Sender(&conformancepb.Send{Count: n}, initial(16))
		for range n {
			p.Want(1)
			p.Request(1)
		}
		p.Complete(n)
		p.Leave()
	},
}, {
	Number: 24, Name: "unknown kinds",
	Proves: "Control of an unknown kind is ignored, but counts as a control message.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, nil)
		p.Say(unknown()...)
		p.Quiet()
		p.Request(2)
		p.Want(2)
		p = t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		p.Say(unknown()...)
		p.Flow(5)
		p.Say(complete(5))
		p.Leave()
		t.both(nil, func(p *Peer) { flood(p, unknown()[0]) })
	},
}, {
	Number: 25, Name: "a second Open",
	Proves: "Open after the first message is UNEXPECTED_FRAME.",
	Run: func(t *T) {
		t.both(nil, func(p *Peer) {
			p.Say(opening(p.defaults(nil)))
			p.Violation("UNEXPECTED_FRAME")
		})
	},
}, {
	Number: 26, Name: "no Open",
	Proves: "Demand or a heartbeat as the first message is UNEXPECTED_FRAME. Silence ends with HANDSHAKE_TIMEOUT.",
	Run: func(t *T) {
		for _, c := range []*creditpb.Control{request(1), heartbeat(false), complete(0)} {
			p := t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}})
			p.Say(c)
			p.WithoutScript("UNEXPECTED_FRAME")
		}
		silence := t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}, HandshakeTimeoutMs: 300})
		if t.is(ServerEnds) && !t.Exact {
			return // a server without a script waits for its default of 10 s, which takes no time in a bubble only
		}
		silence.WithoutScript("HANDSHAKE_TIMEOUT")
	},
}, {
	Number: 27, Name: "versions",
	Proves: "Without a common version the stream ends with VERSION. The versions 1 to 99, and an Open without versions, include " +
		"version 1.",
	Run: func(t *T) {
		p := t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}})
		p.Greet(opening(p.defaults(&creditpb.Open{MinVersion: 99, MaxVersion: 99})))
		p.Violation("VERSION")
		p = t.Sender(&conformancepb.Send{Count: 9}, &creditpb.Open{MinVersion: 1, MaxVersion: 99, Initial: &creditpb.Request{N: 100}})
		p.Complete(9)
		p = t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}})
		p.Greet(opening(&creditpb.Open{WillReceive: true, Initial: &creditpb.Request{N: 100}}))
		p.Opened()
		p.Complete(9)
	},
}, {
	Number: 28, Name: "a role not announced",
	Proves: "Elements for an end that does not receive, demand to an end that does not send, a role that the peer did not announce, " +
		"and a drain that was not negotiated are UNEXPECTED_FRAME.",
	Run: func(t *T) {
		p := t.Sender(nothing(), nil)
		p.Elements(1)
		p.Violation("UNEXPECTED_FRAME")
		p = t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		p.Request(1)
		p.Violation("UNEXPECTED_FRAME")
		p = t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		p.Say(cancel())
		p.Violation("UNEXPECTED_FRAME")
		p = t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}})
		p.Greet(opening(&creditpb.Open{MinVersion: 1, MaxVersion: 1}))
		p.Request(1)
		p.Violation("UNEXPECTED_FRAME")
		p = t.Sender(nothing(), nil)
		p.Say(demand(&creditpb.Request{N: 1, Drain: true}))
		p.Violation("UNEXPECTED_FRAME")
	},
}, {
	Number: 29, Name: "consumed beyond what was sent",
	Proves: "consumed above the number of elements sent is INVALID_CONSUMED, also in Open. Up to that number it is valid.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(3))
		p.Want(3)
		p.Say(demand(&creditpb.Request{Consumed: 3}))
		p.Quiet()
		p.Say(demand(&creditpb.Request{N: 1, Consumed: 5}))
		p.Violation("INVALID_CONSUMED")
		p = t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}})
		p.Greet(opening(p.defaults(&creditpb.Open{Initial: &creditpb.Request{N: 1, Consumed: 1}})))
		p.Violation("INVALID_CONSUMED")
	},
}, {
	Number: 30, Name: "consumed that falls",
	Proves: "consumed below its previous value is INVALID_CONSUMED. The same value again is valid.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(3))
		p.Want(3)
		p.Say(demand(&creditpb.Request{Consumed: 3}), demand(&creditpb.Request{Consumed: 3}))
		p.Quiet()
		p.Say(demand(&creditpb.Request{Consumed: 2}))
		p.Violation("INVALID_CONSUMED")
	},
}, {
	Number: 31, Name: "a receiver that never asks",
	Proves: "FIRST_REQUEST_TIMEOUT without a first demand in time, and CREDIT_STARVED when one send waits too long, end the stream " +
		"and free every waiter. By default a server waits 30 s for the first demand.",
	Deadline: time.Minute,
	Run: func(t *T) {
		const limit = 300 * time.Millisecond
		for reason, s := range map[string]*conformancepb.Send{
			"FIRST_REQUEST_TIMEOUT": {Count: 9, FirstRequestTimeoutMs: int32(limit.Milliseconds())},
			"CREDIT_STARVED":        {Count: 9, StallTimeoutMs: int32(limit.Milliseconds())},
		} {
			start := time.Now()
			p := t.Sender(s, nil)
			p.Violation(reason)
			t.took(reason, start, limit)
		}
		if t.Exact && t.is(ServerEnds) {
			start := time.Now()
			t.Sender(&conformancepb.Send{Count: 9}, nil).Violation("FIRST_REQUEST_TIMEOUT")
			t.took("FIRST_REQUEST_TIMEOUT", start, 30*time.Second)
		}
		p := t.Sender(&conformancepb.Send{Count: 9, FirstRequestTimeoutMs: 100, PaceMs: 50}, initial(9))
		p.Complete(9) // after the first demand there is no time limit
	},
}, {
	Number: 33, Name: "a receiver that never reads",
	Proves: "A sender that is blocked because the peer does not read is freed by the end of the stream.",
	Run: func(t *T) {
		const n = 1000
		p := t.Sender(&conformancepb.Send{Count: n, PayloadBytes: 256 << 10}, nil)
		p.Request(unbounded) // nothing is read from now on
		wait := time.NewTimer(t.Settle)
		defer wait.Stop()
		<-wait.C
		r := p.Report()
		if kind := r.GetSending().GetKind(); r != nil && (r.GetSent() >= n || kind == inOrder || kind == none) {
			t.Fatalf("got %d elements sent and the end {%v} reported, want fewer than %d, and canceled or an error", r.GetSent(), r.GetSending(), n)
		}
	},
}}

// flood sends c until the end of the stream, which must be CONTROL_FLOOD.
func flood(p *Peer, c *creditpb.Control) {
	for range 1_000_000 {
		if !p.Say(c) {
			break
		}
	}
	p.Violation("CONTROL_FLOOD")
}

// WithoutScript is Violation for a session in which a server did not get the script, so that it has no report.
func (p *Peer) WithoutScript(reason string) {
	if p.t.is(ClientEnds) {
		p.Violation(reason)
		return
	}
	p.over()
	if reasonOf(p.ended) != reason {
		p.t.Fatalf("got the end of the stream (%s), want %s", describe(p.ended), reason)
	}
}
