package rules

import (
	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// credit are the rules on the credit of senders and receivers.
var credit = []Rule{{
	Number: 1, Name: "nothing before credit",
	Proves: "A sender with elements sends none before the first demand, and then exactly as many as were asked for.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, nil)
		p.Quiet()
		p.Request(1)
		p.Want(1)
		p.Quiet()
	},
}, {
	Number: 2, Name: "never more than asked for",
	Proves: "At any time, the number of elements is at most the sum of the demand.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 100}, initial(2))
		p.Want(2)
		for _, n := range []int64{1, 3, 2, 7} {
			p.Quiet()
			p.Request(n)
			p.Want(n)
		}
		p.Quiet()
	},
}, {
	Number: 3, Name: "exactly what is asked for if there is so much",
	Proves: "A sender that has n elements sends exactly n on a demand for n.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(5))
		p.Want(5)
		p.Request(3)
		p.Want(3)
		p.Quiet()
	},
}, {
	Number: 4, Name: "fewer and Complete",
	Proves: "A source with fewer elements than the demand sends all of them, and then Complete with their number.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(100))
		p.Complete(9)
		p.Leave()
		p.Sent(9, inOrder)
	},
}, {
	Number: 5, Name: "an empty source completes without demand",
	Proves: "Complete needs no credit, neither at the start nor when the demand is used up.",
	Run: func(t *T) {
		p := t.Sender(&conformancepb.Send{}, nil)
		p.Complete(0)
		p.Leave()
		p = t.Sender(&conformancepb.Send{Count: 3}, initial(3))
		p.Complete(3)
		p.Leave()
	},
}, {
	Number: 6, Name: "an error needs no demand",
	Proves: "Error, with its code, message and total, needs no credit, neither at the start nor when the demand is used up.",
	Run: func(t *T) {
		for _, n := range []int64{0, 3} {
			var o *creditpb.Open
			if n > 0 {
				o = initial(n)
			}
			p := t.Sender(&conformancepb.Send{
				Count: n, Ending: conformancepb.Ending_ENDING_ERROR, ErrorCode: failureCode, ErrorMessage: failureMessage,
			}, o)
			p.Failure(n)
		}
	},
}, {
	Number: 7, Name: "demand adds up before the first element",
	Proves: "The demand in Open and in Requests before the first element adds up.",
	Run: func(t *T) {
		p := t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 100, PaceMs: 20}})
		p.Greet(opening(p.defaults(initial(1))))
		p.Say(request(2), request(3))
		p.Opened()
		p.Want(6)
		p.Quiet()
	},
}, {
	Number: 8, Name: "many small requests lose none",
	Proves: "100,000 times request(1) while elements flow brings 100,000 elements.",
	Run: func(t *T) {
		const ahead = 256 // requests without an answer, far fewer than the flood rule allows
		n := t.times(100_000)
		p := t.Sender(&conformancepb.Send{Count: int64(n)}, nil)
		for asked := range n {
			if lag := int64(asked) - p.got; lag >= ahead {
				p.Want(1)
			}
			p.Request(1)
		}
		p.Complete(int64(n))
		p.Leave()
	},
}, {
	Number: 9, Name: "in order and none twice",
	Proves: "With windows of 1, 2, 7 and 64 the elements come in order, and each of them once.",
	Run: func(t *T) {
		for _, w := range []int64{1, 2, 7, 64} {
			const n = 300
			p := t.Sender(&conformancepb.Send{Count: n}, initial(w))
			for range n {
				p.Want(1)
				p.Request(1)
			}
			p.Complete(n)
			p.Leave()
		}
	},
}, {
	Number: 10, Name: "eight concurrent senders",
	Proves: "With eight concurrent senders, scarce credit and then Complete, each element comes once, and the total is right.",
	Run: func(t *T) {
		const n = 400
		p := t.Sender(&conformancepb.Send{Count: n, Senders: 8}, initial(3))
		for range n {
			p.Want(1)
			p.Request(1)
		}
		p.Complete(n)
		p.Leave()
		p.Sent(n, inOrder)
	},
}, {
	Number: 11, Name: "a window of one works",
	Proves: "Receivers with windows of 1, 2 and 3 get all elements.",
	Run: func(t *T) {
		for w := range int32(3) {
			const n = 50
			p := t.Receiver(&conformancepb.Receive{Window: w + 1}, nil)
			p.Flow(n)
			p.Say(complete(n))
			p.Leave()
			p.Received(n, inOrder)
		}
	},
}, {
	Number: 12, Name: "never more than the window",
	Proves: "Granted elements that are not consumed are at most the window, however many were consumed before.",
	Run: func(t *T) {
		for _, w := range []int32{1, 2, 7, 64} {
			for _, take := range []int64{0, 10} {
				p := t.Receiver(&conformancepb.Receive{Window: w, Take: &take}, nil)
				for p.sent < take {
					p.Granted(p.sent + 1)
					p.Elements(int(min(take, p.granted) - p.sent))
				}
				p.Granted(take + 1)
				p.GrantedAtMost(take + int64(w))
				p.Elements(int(p.granted - p.sent)) // the end does not consume these
				p.GrantedAtMost(take + int64(w))
				p.Hang(nil)
			}
		}
	},
}, {
	Number: 13, Name: "few requests",
	Proves: "A receiver with a window of 64 asks at most once for each 32 elements, and once at the start.",
	Run: func(t *T) {
		const n = 3200
		p := t.Receiver(&conformancepb.Receive{Window: 64}, nil)
		p.Flow(n)
		p.Say(complete(n))
		p.Leave()
		if most := n/32 + 1; p.requests > most {
			t.Fatalf("got %d requests for %d elements, want at most %d", p.requests, n, most)
		}
	},
}}

// requests are the rules on the demand of receivers.
var requests = []Rule{{
	Number: 14, Name: "manual demand is what was asked",
	Proves: "With manual demand, the sum of the demand on the wire is exactly the sum that the application asked for.",
	Run: func(t *T) {
		p := t.Receiver(&conformancepb.Receive{Requests: []int64{3, 1, 5}}, nil)
		p.Flow(9)
		p.GrantedAtMost(9)
		p.Say(complete(9))
		p.Leave()
		p.Received(9, inOrder)
	},
}, {
	Number: 15, Name: "no grants after Cancel",
	Proves: "After Cancel a receiver makes no more demands, even if more elements arrive.",
	Run: func(t *T) {
		after := int64(3)
		p := t.Begin(&conformancepb.Script{
			Receive: &conformancepb.Receive{Window: 4, CancelAfter: &after}, LingerMs: 100,
		}).Open(nil)
		p.Flow(after)
		p.Canceled()
		p.Elements(int(p.granted - p.sent)) // they were on their way
		p.over()
	},
}}
