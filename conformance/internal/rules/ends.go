package rules

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

func after(n int64) *int64 { return &n }

// LeaveCanceled is Leave for an end after its sending was canceled. A server may then end with the status
// CANCELED.
func (p *Peer) LeaveCanceled() {
	p.HalfClose()
	p.over()
	if c := status.Code(p.ended); p.t.is(ServerEnds) && c == codes.Canceled {
		p.Hang(nil)
		return
	}
	p.Leave()
}

// ends are the rules on the ends of directions and streams.
var ends = []Rule{{
	Number: 46, Name: "after Cancel",
	Proves: "After Cancel at most the outstanding credit arrives, and later demand brings nothing.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 1_000_000}, initial(100))
		p.Want(5)
		p.Say(cancel())
		p.Say(request(50))
		p.asked = 100 // the second demand does not count
		p.LeaveCanceled()
	},
}, {
	Number: 47, Name: "Cancel ten times",
	Proves: "A second Cancel has no effect on a sender. An application that cancels again does not make the receiver send it twice.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(1))
		p.Want(1)
		for range 10 {
			p.Say(cancel())
		}
		p.LeaveCanceled()
		p.Sent(1, isCanceled)
		p = t.Begin(&conformancepb.Script{ // it lingers, because messages that a client sends just before it leaves may be lost
			Receive: &conformancepb.Receive{Window: 4, CancelAfter: after(2), Cancels: 10}, LingerMs: 50,
		}).Open(nil)
		p.Flow(2)
		p.Canceled()
		p.Say(complete(2))
		p.over()
		if p.cancels != 1 {
			t.Fatalf("got Cancel %d times, want it once", p.cancels)
		}
		p.Received(2, isCanceled)
	},
}, {
	Number: 48, Name: "late frames to a sender",
	Proves: "Demand, drains, Cancel, unknown kinds and heartbeats that cross Complete change nothing. The stream ends in order.",
	Run: func(t *T) {
		// After Complete, a sender waits for the report that everything is consumed.
		p := t.Sender(&conformancepb.Send{Count: 3}, initial(3, allFeatures...))
		p.Complete(3)
		p.Say(request(5), demand(&creditpb.Request{N: 1, Drain: true}), heartbeat(true), unknown()[0], demand(&creditpb.Request{Consumed: 2}))
		p.Say(demand(&creditpb.Request{Consumed: 3}), cancel(), cancel())
		p.Leave()
		p.Sent(3, inOrder)
		p = t.Sender(&conformancepb.Send{Count: 3}, initial(3, allFeatures...))
		p.Complete(3)
		p.Say(request(-1)) // it is still validated
		p.over()
	},
}, {
	Number: 49, Name: "late frames to a receiver",
	Proves: "Elements, Complete, Error and heartbeats that cross Cancel change nothing. Elements beyond credit are still a " +
		"violation.",
	Run: func(t *T) {
		for _, end := range []*creditpb.Control{complete(4), failure(4)} {
			p := t.Begin(&conformancepb.Script{
				Receive: &conformancepb.Receive{Window: 4, CancelAfter: after(2)}, LingerMs: 50,
			}).Open(nil)
			p.Flow(2)
			p.Canceled()
			p.Elements(2)
			p.Say(heartbeat(false), end)
			p.over()
			p.Received(2, isCanceled)
		}
		p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4, CancelAfter: after(0)}, nil)
		p.Canceled()
		p.Elements(5)
		t.received(p.Violation("CREDIT_EXCEEDED"), 0)
	},
}, {
	Number: 50, Name: "Cancel against Complete",
	Proves: "When Cancel and Complete cross, a thousand times, each side learns of exactly one end.",
	Run: func(t *T) {
		for range t.times(1000) {
			p := t.Sender(&conformancepb.Send{Count: 3}, initial(3))
			p.Want(2)
			p.Say(cancel())
			p.LeaveCanceled()
			if r := p.Report(); r != nil && r.GetSending().GetKind() != inOrder && r.GetSending().GetKind() != isCanceled {
				t.Fatalf("got the end {%v} of sending, want it in order or canceled", r.GetSending())
			}
			p = t.Receiver(&conformancepb.Receive{Window: 4, CancelAfter: after(2)}, nil)
			p.Elements(2)
			p.Say(complete(2))
			p.over()
			p.Received(2, isCanceled)
		}
	},
}, {
	Number: 51, Name: "Cancel wakes a send",
	Proves: "Cancel ends a send that waits for credit, and its element is not sent.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, nil)
		p.Quiet()
		p.Say(cancel())
		p.LeaveCanceled()
		p.Sent(0, isCanceled)
	},
}, {
	Number: 52, Name: "giving up a send",
	Proves: "A send that its caller has given up is not sent. Its credit is neither lost nor spent twice.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 20, Senders: 2, GiveUpMs: 10}, nil)
		p.Quiet()
		for _, n := range []int64{1, 4, 5} {
			p.Request(n)
			p.Want(n)
			p.Quiet()
		}
		p.Request(10)
		p.Complete(20)
		p.Leave()
		if r := p.Report(); r != nil && (r.GetGivenUp() == 0 || r.GetSent() != 20) {
			t.Fatalf("got %d sends given up and %d that succeeded, want some and 20", r.GetGivenUp(), r.GetSent())
		}
	},
}, {
	Number: 53, Name: "Cancel leaves the other direction",
	Proves: "If both ends send, Cancel of one direction by either end does not affect the other direction.",
	Run: func(t *T) {
		p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, initial(2))
		p.Want(2)
		p.Say(cancel())
		p.Flow(9)
		p.Say(complete(9))
		p.LeaveCanceled()
		p.Received(9, inOrder)
		p = t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4, CancelAfter: after(2)}, initial(2))
		p.Flow(2)
		p.Canceled()
		p.Request(7)
		p.Complete(9)
		p.Leave()
		p.Sent(9, inOrder)
	},
}, {
	Number: 54, Name: "the end of one direction leaves the other",
	Proves: "After a client's half-close the server still sends within its credit, and a sender without credit ends. A client " +
		"half-closes only after it has received everything.",
	Run: func(t *T) {
		p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, initial(9))
		if p.line.half == nil {
			p.Complete(9)
			p.Flow(5)
			p.Quiet()
			p.Flow(9)
			p.Say(complete(9))
			p.Leave()
			p.Received(9, inOrder)
			return
		}
		p.Flow(2)
		p.HalfClose()
		p.Complete(9)
		p.Leave()
		p.Received(2, inOrder)
		p = t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, nil)
		p.Request(5)
		p.HalfClose()
		p.Want(5)
		p.LeaveCanceled()
		p.Sent(5, isCanceled)
	},
}, {
	Number: 55, Name: "the end of the stream",
	Proves: "A half-close or the status OK without Complete means Complete.",
	Run: func(t *T) {
		p := t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		p.Flow(3)
		p.HalfClose()
		if p.line.half == nil {
			p.Hang(nil)
		} else {
			p.Leave()
		}
		p.Received(3, inOrder)
	},
}, {
	Number: 56, Name: "a broken stream is an error",
	Proves: "If a call is canceled or fails, both its receivers and its senders get an error and never an end in order.",
	Run: func(t *T) {
		for range t.times(100) {
			p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, nil)
			p.Flow(1)
			p.Hang(status.Error(codes.Unavailable, "the suite breaks the stream"))
			r := p.Report()
			if r != nil && (r.GetReceiving().GetKind() != failed || r.GetSending().GetKind() != failed) {
				t.Fatalf("got the ends {%v} of sending and {%v} of receiving, want errors", r.GetSending(), r.GetReceiving())
			}
		}
	},
}, {
	Number: 57, Name: "what is buffered comes first",
	Proves: "A slow application gets all elements that were sent before Complete or Error, and then that end.",
	Run: func(t *T) {
		p := t.Receiver(&conformancepb.Receive{Window: 10, PaceMs: 20}, nil)
		p.Elements(10)
		p.Say(complete(10))
		p.Leave()
		p.Received(10, inOrder)
		p = t.Receiver(&conformancepb.Receive{Window: 10, PaceMs: 20}, nil)
		p.Elements(10)
		p.Say(failure(10))
		p.over()
		p.Received(10, failed)
		if e := p.Report().GetReceiving(); e != nil && (e.GetCode() != failureCode || e.GetMessage() != failureMessage) {
			t.Fatalf("got the end {%v}, want code %d, message %q", e, failureCode, failureMessage)
		}
	},
}, {
	Number: 58, Name: "the server leaves", Only: ClientEnds,
	Proves: "When the handler returns, a waiting send of the client ends. After OK it ends as canceled, and otherwise with the " +
		"status.",
	Run: func(t *T) {
		for _, c := range []struct {
			err  error
			kind conformancepb.EndKind
		}{{nil, isCanceled}, {status.Error(codes.Code(failureCode), failureMessage), failed}} {
			p := t.Sender(&conformancepb.Send{Count: 9}, initial(2))
			p.Want(2)
			p.Quiet()
			p.Hang(c.err)
			p.Sent(2, c.kind)
			if r := p.Report(); r != nil && c.err != nil && r.GetSending().GetCode() != failureCode {
				t.Fatalf("got the end {%v}, want code %d", r.GetSending(), failureCode)
			}
		}
	},
}}
