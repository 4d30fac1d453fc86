package rules

import (
	"fmt"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// holding is a receiver that asks for w elements and consumes none.
func holding(w int32) *conformancepb.Receive { return &conformancepb.Receive{Window: w, Hold: true} }

// received checks that the application got at most that many elements, in order from the first.
func (t *T) received(r *conformancepb.Report, most int64) {
	if r != nil && (r.GetReceived() > most || r.GetOutOfOrder() != 0) {
		t.Fatalf("got %d elements received, out of order %d; want at most %d, in order", r.GetReceived(), r.GetOutOfOrder(), most)
	}
}

// batch is n elements in one Frame, from number first.
func batch(first int64, n int) (m Message) {
	for i := range n {
		m.Elements = append(m.Elements, Element{Number: first + int64(i)})
	}
	return m
}

// badSenders are the rules for receivers with senders that break the protocol.
var badSenders = []Rule{{
	Number: 34, Name: "beyond credit",
	Proves: "The first element beyond the granted credit is CREDIT_EXCEEDED. The application gets at most the granted elements.",
	Run: func(t *T) {
		p := t.Receiver(holding(4), nil)
		p.Granted(4)
		p.Elements(5)
		t.received(p.Violation("CREDIT_EXCEEDED"), 4)
	},
}, {
	Number: 35, Name: "before any grant",
	Proves: "An element before any grant is CREDIT_EXCEEDED. The application does not get it.",
	Run: func(t *T) {
		p := t.Receiver(&conformancepb.Receive{}, nil)
		p.Elements(1)
		t.received(p.Violation("CREDIT_EXCEEDED"), 0)
	},
}, {
	Number: 36, Name: "a burst",
	Proves: "A sender that sends a million elements without credit is stopped at the first one beyond its credit.",
	Run: func(t *T) {
		p := t.Receiver(holding(4), nil)
		for range t.times(1_000_000) {
			if !p.Elements(1) {
				break
			}
		}
		t.received(p.Violation("CREDIT_EXCEEDED"), 4)
	},
}, {
	Number: 37, Name: "after a terminal",
	Proves: "Elements, Complete, Error and Drained after Complete or Error are AFTER_TERMINAL. The application gets the first " +
		"terminal only.",
	Run: func(t *T) {
		for _, end := range []*creditpb.Control{complete(2), failure(2)} {
			kind := inOrder
			if end.GetError() != nil {
				kind = failed
			}
			for _, late := range []Message{
				numbered(3, 0), {Control: complete(2)}, {Control: failure(2)}, {Control: drained(2, 0)},
			} {
				p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, nil)
				p.Flow(2)
				p.Say(end)
				p.Send(late)
				if r := p.Violation("AFTER_TERMINAL"); r != nil && kind == inOrder {
					p.Received(2, inOrder)
				}
			}
		}
	},
}, {
	Number: 39, Name: "a wrong total",
	Proves: "A total in Complete or Error that differs from the number of received elements is COUNT_MISMATCH.",
	Run: func(t *T) {
		for _, end := range []*creditpb.Control{complete(4), complete(2), failure(4)} {
			p := t.Receiver(&conformancepb.Receive{Window: 4}, nil)
			p.Flow(3)
			p.Say(end)
			t.received(p.Violation("COUNT_MISMATCH"), 3)
		}
	},
}, {
	Number: 40, Name: "a giant element",
	Proves: "An element above max_message_bytes is MESSAGE_TOO_LARGE, and the application does not get it. An element of exactly " +
		"max_message_bytes is valid.",
	Run: func(t *T) {
		const most = 1000
		p := t.Receiver(&conformancepb.Receive{Window: 4, MaxMessageBytes: most}, nil)
		if got := p.opened.GetMaxMessageBytes(); got != most {
			t.Fatalf("got Open with max_message_bytes %d, want %d", got, most)
		}
		p.Send(sized(1, most), sized(2, most+1))
		t.received(p.Violation("MESSAGE_TOO_LARGE"), 1)
		p = t.Receiver(&conformancepb.Receive{Window: 4, MaxMessageBytes: most}, nil)
		p.Send(sized(1, 3<<20))
		t.received(p.Violation("MESSAGE_TOO_LARGE"), 0)
	},
}, {
	Number: 41, Name: "a giant send",
	Proves: "A send above the receiver's max_message_bytes fails at the sender, sends nothing, and costs no credit.",
	Run: func(t *T) {
		o := initial(2)
		o.MaxMessageBytes = 1000
		p := t.Sender(&conformancepb.Send{Count: 5, OversizeBefore: 2, OversizeBytes: 5000}, o)
		p.Want(2)
		p.Quiet()
		p.Request(3)
		p.Complete(5)
		p.Leave()
		if r := p.Report(); r != nil && (r.GetTooLarge() != 1 || r.GetSent() != 5) {
			t.Fatalf("got %d sends that were too large and %d that succeeded, want 1 and 5", r.GetTooLarge(), r.GetSent())
		}
	},
}, {
	Number: 42, Name: "byte windows",
	Proves: "A sender stops when the unconsumed bytes reach max_buffered_bytes, and not before. An element larger than the window " +
		"passes alone. An element beyond the window is BYTES_EXCEEDED. A receiver reports when half of its byte window is " +
		"consumed.",
	Run: func(t *T) { sendingInBytes(t); receivingInBytes(t) },
}, {
	Number: 43, Name: "batches", Only: Framed,
	Proves: "A batch beyond credit is CREDIT_EXCEEDED, and none of it is delivered. A batch within credit is delivered in order. A " +
		"batch without FEATURE_BATCH is UNEXPECTED_FRAME.",
	Run: func(t *T) {
		p := t.Receiver(holding(4), &creditpb.Open{Features: allFeatures})
		p.Send(batch(1, 3), batch(4, 2))
		t.received(p.Violation("CREDIT_EXCEEDED"), 3)
		p = t.Receiver(&conformancepb.Receive{Window: 4}, &creditpb.Open{Features: allFeatures})
		p.Send(batch(1, 4))
		p.Granted(8)
		p.Send(batch(5, 2), Message{Control: complete(6)})
		p.Leave()
		p.Received(6, inOrder)
		p = t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		p.Send(batch(1, 2))
		t.received(p.Violation("UNEXPECTED_FRAME"), 0)
	},
}, {
	Number: 44, Name: "bytes that are no message",
	Proves: "A message that cannot be decoded ends its own stream with an error, and no other stream.",
	Run: func(t *T) {
		other := t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		other.kept = true
		other.Flow(2)
		p := t.Receiver(&conformancepb.Receive{Window: 4}, nil)
		p.Flow(1)
		p.Send(Message{Verbatim: []byte{0xff, 0xff, 0xff}})
		p.over()
		if r := p.Report(); r != nil && (r.GetReceiving().GetKind() != failed || r.GetReceived() > 1) {
			t.Fatalf("got the end {%v} after %d elements, want an error after 1 at most", r.GetReceiving(), r.GetReceived())
		}
		other.Flow(9)
		other.Say(complete(9))
		other.Leave()
		other.Received(9, inOrder)
	},
}, {
	Number: 45, Name: "control on an element",
	Proves: "In a message with Control and an element, Control comes first. Demand in it counts, and after a violation in it the " +
		"element is not delivered.",
	Run: func(t *T) {
		p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, nil)
		p.Granted(1)
		m := numbered(1, 0)
		m.Control = request(2)
		p.Send(m)
		p.Want(2)
		p.Quiet()
		p.Flow(8)
		m = numbered(9, 0)
		m.Control = request(-1)
		p.Granted(9)
		p.Send(m)
		t.received(p.Violation("INVALID_DEMAND"), 8)
	},
}}

// sendingInBytes checks a sender with the byte window of a receiver.
func sendingInBytes(t *T) {
	const size, window = 1000, 3500 // three elements of a little more than 1000 bytes do not reach it, and four do
	o := initial(100)
	o.MaxBufferedBytes = window
	p := t.Sender(&conformancepb.Send{Count: 10, PayloadBytes: size}, o)
	p.Want(4)
	p.Quiet()
	p.Say(demand(&creditpb.Request{Consumed: 1}))
	p.Want(1)
	p.Quiet()
	p.Say(demand(&creditpb.Request{Consumed: 5}))
	p.Want(4)
	p.Quiet()
	p.Say(demand(&creditpb.Request{Consumed: 9}))
	p.Complete(10)

	o = initial(100)
	o.MaxBufferedBytes = 10
	p = t.Sender(&conformancepb.Send{Count: 3, PayloadBytes: size}, o)
	for n := range uint64(2) {
		p.Want(1)
		p.Quiet()
		p.Say(demand(&creditpb.Request{Consumed: n + 1}))
	}
	p.Complete(3)
}

// receivingInBytes checks the byte window of a receiver.
func receivingInBytes(t *T) {
	const window = 4000
	p := t.Receiver(&conformancepb.Receive{Window: 100, ByteWindow: window}, nil)
	if got := p.opened.GetMaxBufferedBytes(); got != window {
		t.Fatalf("got Open with max_buffered_bytes %d, want %d", got, window)
	}
	for n := int64(1); n <= 20; n++ { // as much as the window holds, and then as much as is reported
		for !p.mayHold(1000, window) {
			p.Recv(fmt.Sprintf("a report that more than %d of %d elements are consumed", p.consumed, p.sent))
		}
		p.Send(sized(n, 1000))
	}
	p.Say(complete(20))
	p.Leave()
	p.Received(20, inOrder)

	p = t.Receiver(&conformancepb.Receive{Window: 100, ByteWindow: window, Hold: true}, nil)
	p.Send(sized(1, 3*window)) // an empty window accepts any size
	p.Quiet()
	p.Send(sized(2, 10))
	t.received(p.Violation("BYTES_EXCEEDED"), 1)

	p = t.Receiver(&conformancepb.Receive{Window: 100, ByteWindow: window, Hold: true}, nil)
	p.Send(sized(1, window-1), sized(2, 1000)) // the last element may exceed the window
	p.Quiet()
	p.Send(sized(3, 10))
	t.received(p.Violation("BYTES_EXCEEDED"), 2)
}

// mayHold reports whether one more element may be sent to a receiver with a byte window, if all have the same
// size.
func (p *Peer) mayHold(size, window int64) bool {
	return (p.sent-int64(p.consumed))*size < window
}
