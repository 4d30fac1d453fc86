package rules

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// faults are the rules on mistakes that implementations have made. Rule 71 is a program in conformance/node.
var faults = []Rule{{
	Number: 72, Name: "requests saved up",
	Proves: "request(1) for each of 3,000 elements, all at once, is no flood, because the allowance for an element does not expire.",
	Run: func(t *T) {
		const held = 3_000
		p := t.Sender(&conformancepb.Send{Count: held, Ending: conformancepb.Ending_ENDING_NOTHING}, initial(held))
		p.Want(held)
		for range held { // no element answers them, so they earn no new allowance
			p.Request(1)
		}
		p.Quiet()
		p = t.Sender(&conformancepb.Send{Count: 2 * held}, initial(held))
		p.Want(held)
		for range held {
			p.Request(1)
		}
		p.Want(held)
		p.Complete(2 * held)
		p.Leave()
	},
}, {
	Number: 73, Name: "no silence longer than asked for",
	Proves: "If asked for heartbeats, an idle end is silent for at most the interval, starting with its first message.",
	Run: func(t *T) {
		for _, beat := range []time.Duration{200 * time.Millisecond, 500 * time.Millisecond} {
			t.both(&creditpb.Open{Features: allFeatures, Heartbeat: durationpb.New(beat)}, func(p *Peer) {
				for range 3 {
					start := time.Now()
					p.Heartbeat()
					if silent := time.Since(start); t.Exact && silent > beat { // outside a bubble the machine may be busy
						t.Fatalf("got silence of %v, want at most %v", silent, beat)
					}
				}
			})
		}
	},
}, {
	Number: 74, Name: "batches within the bound",
	Proves: "A batch is at most max_message_bytes, or 8 KiB if that is absent, and arrives within a heartbeat at 64 KiB a second.",
	Only:   Framed,
	Run: func(t *T) {
		const count = 2_000
		for _, c := range []struct {
			announced     int64
			beat          time.Duration
			payload, most int
		}{
			{0, 0, 100, 8 << 10},
			{300, 0, 100, 300},
			{2_000, 0, 100, 2_000},
			{8 << 10, 0, 100, 8 << 10},
			{1 << 20, 200 * time.Millisecond, 1_000, 64 << 10 / 5},
		} {
			o := initial(count, allFeatures...)
			o.MaxMessageBytes = c.announced
			if c.beat > 0 {
				o.Heartbeat = durationpb.New(c.beat)
			}
			p := t.Sender(&conformancepb.Send{Count: count, PayloadBytes: int32(c.payload)}, o)
			for p.got < count {
				if n := len(p.Recv("elements").Elements); n > 1 && n*c.payload > c.most {
					t.Fatalf("got a batch of %d elements of more than %d bytes, want at most %d bytes together", n, c.payload, c.most)
				}
			}
			p.Complete(count)
			p.Leave()
		}
	},
}, {
	Number: 75, Name: "demand within the sender's bound",
	Proves: "A receiver keeps its unused demand within the sender's max_credit. Only the first demand of a client may be larger.",
	Run: func(t *T) {
		const most = 10
		p := t.Receiver(&conformancepb.Receive{Window: 64}, &creditpb.Open{Features: allFeatures, MaxCredit: most})
		if got := p.granted; t.is(ServerEnds) && got > most {
			t.Fatalf("got a first demand of %d, want at most %d", got, most)
		}
		for range 20 {
			p.Elements(int(p.granted - p.sent))
			for sent := p.sent; p.granted == sent; {
				p.Recv("a Request")
			}
			if got := p.granted - p.sent; got > most {
				t.Fatalf("got demand for %d, want at most %d", got, most)
			}
		}
	},
}}
