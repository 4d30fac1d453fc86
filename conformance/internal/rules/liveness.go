package rules

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// liveness are the rules on streams that must go on and on dead streams that must end.
var liveness = []Rule{{
	Number: 63, Name: "full duplex one at a time",
	Proves: "Both sides send and receive alternately in one thread with windows of 1. They exchange 100,000 small elements each " +
		"way, and large ones.",
	Deadline: 2 * time.Minute,
	Run: func(t *T) {
		for _, c := range []struct {
			n    int
			size int32
		}{{t.times(100_000), 16}, {t.times(200), 1 << 20}} {
			p := t.Begin(&conformancepb.Script{
				Send: &conformancepb.Send{Count: int64(c.n), PayloadBytes: c.size}, Receive: &conformancepb.Receive{Window: 1}, Lockstep: true,
			}).Open(initial(1))
			for n := range int64(c.n) {
				p.Granted(n + 1)
				p.Elements(1)
				for p.got <= n {
					p.Recv("the end's next element")
				}
				p.Request(1)
			}
			p.Say(complete(uint64(c.n)))
			p.Complete(int64(c.n))
			p.Leave()
			p.Received(int64(c.n), inOrder)
		}
	},
}, {
	Number: 64, Name: "large windows over a small transport",
	Proves: "A peer that has credit for 1,000 elements of 32 KiB, and sends them before it reads any of as many, is not blocked. An " +
		"end reads at all times, even if it cannot write its answers.",
	Deadline: time.Minute,
	Run: func(t *T) {
		n := int64(t.times(1000))
		p := t.Duplex(&conformancepb.Send{Count: n, PayloadBytes: 32 << 10}, &conformancepb.Receive{Window: 1024}, initial(n))
		p.Granted(n)
		for p.sent < n && p.Elements(1) && p.Say(heartbeat(true)) { // an answer is wanted, but must not block reading
		}
		p.Say(complete(uint64(n)))
		p.Complete(n)
		p.Leave()
		p.Received(n, inOrder)
		p.Sent(n, inOrder)
	},
}, {
	Number: 65, Name: "a peer that has gone",
	Proves: "An end that asked for heartbeats and hears nothing for three intervals ends the stream with PEER_STALLED. An end that " +
		"hears heartbeats does not.",
	Run: func(t *T) {
		const beat = 100 * time.Millisecond
		script := func() *conformancepb.Script {
			return &conformancepb.Script{Receive: &conformancepb.Receive{Window: 4}, HeartbeatMs: int32(beat.Milliseconds())}
		}
		start := time.Now()
		p := t.Begin(script()).Open(&creditpb.Open{Features: allFeatures})
		if got := p.opened.GetHeartbeat().AsDuration(); got != beat {
			t.Fatalf("got Open with heartbeat %v, want %v", got, beat)
		}
		p.Violation("PEER_STALLED")
		if got := time.Since(start); got < 3*beat || t.Exact && got > 4*beat {
			t.Fatalf("got PEER_STALLED after %v, want it after %v", got, 3*beat)
		}
		p = t.Begin(script()).Open(&creditpb.Open{Features: allFeatures})
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for range 8 {
			<-tick.C
			p.Say(heartbeat(false))
		}
		p.Say(complete(0))
		p.Leave()
	},
}, {
	Number: 66, Name: "heartbeats only when idle",
	Proves: "If asked for heartbeats, an end that sends often enough sends none. An idle end sends them in time, with its sent and " +
		"credit. A heartbeat with echo is answered.",
	Run: func(t *T) {
		const beat = 200 * time.Millisecond
		o := func() *creditpb.Open {
			return &creditpb.Open{Features: allFeatures, Heartbeat: durationpb.New(beat), Initial: &creditpb.Request{N: 30}}
		}
		if t.Exact { // outside a bubble an element can be late
			p := t.Sender(&conformancepb.Send{Count: 25, PaceMs: 50, Ending: conformancepb.Ending_ENDING_NOTHING}, o())
			for p.got < 25 {
				if m := p.Recv("elements"); m.Control.GetHeartbeat() != nil {
					t.Fatalf("got a heartbeat after %d elements, want none while they flow", p.got)
				}
			}
		}
		p := t.Sender(&conformancepb.Send{Count: 25, Ending: conformancepb.Ending_ENDING_NOTHING}, o())
		p.Want(25)
		for range 3 {
			start := time.Now()
			b := p.Heartbeat()
			if took := time.Since(start); t.Exact && took > 2*beat {
				t.Fatalf("got a heartbeat after %v, want one every %v", took, beat)
			}
			if b.GetSent() != 25 || b.GetCredit() != 5 {
				t.Fatalf("got a heartbeat with sent %d and credit %d, want 25 and 5", b.GetSent(), b.GetCredit())
			}
		}
		t.both(nil, func(p *Peer) {
			p.Say(heartbeat(true))
			if p.Heartbeat().GetEcho() {
				t.Fatalf("got an answer with echo, want it without")
			}
			p.Quiet()
		})
	},
}, {
	Number: 69, Name: "opens and cancels",
	Proves:   "After 10,000 streams that were opened and broken, the end works as before.",
	Deadline: time.Minute,
	Run: func(t *T) {
		for range t.times(10_000) {
			p := t.Duplex(&conformancepb.Send{Count: 9}, &conformancepb.Receive{Window: 4}, initial(1))
			p.Hang(status.Error(codes.Canceled, "the suite breaks the stream"))
			p.Report()
		}
		p := t.Sender(&conformancepb.Send{Count: 9}, initial(9))
		p.Complete(9)
		p.Leave()
	},
}, {
	Number: 70, Name: "an unaware peer",
	Proves: "A first message without Control is UNEXPECTED_FRAME, and no hang. For a client, the end of the call without any " +
		"message is an error too.",
	Run: func(t *T) {
		p := t.Begin(&conformancepb.Script{Send: &conformancepb.Send{Count: 9}, Receive: &conformancepb.Receive{Window: 4}})
		p.Send(numbered(1, 10))
		p.WithoutScript("UNEXPECTED_FRAME")
		if t.is(ServerEnds) {
			return
		}
		for _, err := range []error{nil, status.Error(codes.Unimplemented, "the suite has no such method")} {
			p = t.Begin(&conformancepb.Script{Receive: &conformancepb.Receive{Window: 4}})
			p.Hang(err)
			if r := p.Report(); r != nil && r.GetReceiving().GetKind() != failed {
				t.Fatalf("got the end {%v} for a server that ended with %v and said nothing, want an error", r.GetReceiving(), err)
			}
		}
	},
}}

// Heartbeat reads until a heartbeat.
func (p *Peer) Heartbeat() *creditpb.Heartbeat {
	for {
		if b := p.Recv("a heartbeat").Control.GetHeartbeat(); b != nil {
			return b
		}
	}
}
