package rules

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// The trailers of servers, see FEATURE_UNFINISHED and FEATURE_CONSUMED.
const (
	unfinishedTrailer = "weir-credit-unfinished"
	consumedTrailer   = "weir-credit-consumed"
)

// accounts are the rules on lost elements. Every element arrives, or its sender or its receiver learns why
// not.
var accounts = []Rule{{
	Number: 76, Name: "demand without reports",
	Proves: "A receiver need not report consumed elements. Unbounded demand, and demand beyond the sender's bound, bring all " +
		"elements.",
	Run: func(t *T) {
		for _, c := range []struct{ count, demand, bound int64 }{{5_000, unbounded, 0}, {5_000, 5_000, 0}, {100, 1_000, 10}, {100, unbounded, 10}} {
			p := t.Sender(&conformancepb.Send{Count: c.count, MaxPeerCredit: c.bound}, &creditpb.Open{Features: allFeatures})
			p.Request(c.demand)
			p.Complete(c.count)
			p.Say(demand(&creditpb.Request{Consumed: uint64(c.count)}))
			p.Leave()
		}
	},
}, {
	Number: 77, Name: "a large element takes its time",
	Proves: "An element of more than 64 KiB times the heartbeat in seconds is announced. The receiver of an announced element waits " +
		"a second for each 64 KiB of it before it ends the stream with PEER_STALLED.",
	Run: func(t *T) {
		const beat, size = 500 * time.Millisecond, 256 << 10
		o := initial(1, allFeatures...)
		o.Heartbeat = durationpb.New(beat)
		p := t.Sender(&conformancepb.Send{Count: 1, PayloadBytes: size}, o)
		for announced := int64(0); p.got == 0; {
			if m := p.Recv("an element"); m.Control.GetHeartbeat() != nil {
				announced = m.Control.GetHeartbeat().GetNextBytes()
			}
			if p.got > 0 && announced < size {
				t.Fatalf("got an element of %d bytes after next_bytes %d, want it announced", size, announced)
			}
		}
		receiver := func() *Peer {
			p := t.Begin(&conformancepb.Script{
				Receive: &conformancepb.Receive{Window: 4}, HeartbeatMs: int32(beat.Milliseconds()),
			}).Open(&creditpb.Open{Features: allFeatures})
			p.Granted(1)
			p.Say(announcement(size))
			return p
		}
		p = receiver()
		t.wait(3 * time.Second) // more than three heartbeats, and less than the 4 s that the announcement gives
		p.Send(numbered(1, size))
		p.Say(complete(1))
		p.Leave()
		p.Received(1, inOrder)
		receiver().Violation("PEER_STALLED")
	},
}, {
	Number: 78, Name: "request and drain for ever", Deadline: 2 * time.Minute,
	Proves: "Alternate demands and drains, with and without an element between them, are no flood. A receiver asks no more often " +
		"than the flood rule allows, and a sender answers every drain.",
	Run: func(t *T) {
		rounds := t.times(1_000)
		if t.Exact {
			rounds = 1_300 // more than the flood rule's 1000
		}
		for elements := range int64(2) {
			drainingReceiver(t, rounds, elements)
		}
		p := t.Sender(&conformancepb.Send{Count: 1 << 40}, &creditpb.Open{Features: allFeatures})
		for n := range rounds {
			if n > 900 {
				t.wait(10 * time.Millisecond)
			}
			p.Say(demand(&creditpb.Request{N: 10, Drain: true}))
			if p.Drained() == nil {
				t.Fatalf("got %v after %s, want Drained", p.terminal, p.account())
			}
		}
		p.Request(3)
		p.Want(3)
		p.Quiet()
	},
}, {
	Number: 79, Name: "elements before a bad one",
	Proves: "Elements that arrived before an element that is too large or beyond credit, or before an invalid message, are " +
		"delivered to an application of any speed. Then it gets the real reason.",
	Run: func(t *T) {
		for _, bad := range []Message{{Verbatim: []byte{0xff, 0xff, 0xff}}, sized(5, 5_000), {Control: complete(9)}} {
			for _, good := range []int64{0, 1, 3} {
				p := t.Receiver(&conformancepb.Receive{Window: 4, PaceMs: 20, MaxMessageBytes: 1_000}, nil)
				p.Flow(good)
				p.Send(bad)
				p.over()
				r := p.Report()
				if r == nil {
					continue
				}
				e := r.GetReceiving()
				if r.GetReceived() != good || e.GetKind() != failed || codes.Code(uint32(e.GetCode())) == codes.Canceled || e.GetEnds() != 1 {
					t.Fatalf("got %d elements and the end {%v} after %v, want %d and once an error that is not CANCELED", r.GetReceived(), e, bad, good)
				}
			}
		}
	},
}, {
	Number: 80, Name: "what was accepted arrives", Only: ServerEnds,
	Proves: "If a handler sends and returns OK without Complete, every element that its send accepted arrives. If the client knows " +
		"FEATURE_UNFINISHED, a trailer may say instead that some elements may be lost.",
	Run: func(t *T) {
		const count = 500
		for n := range t.times(400) {
			known := n%2 == 1
			o := initial(count, allFeatures...)
			if known {
				o.Features = append(o.Features, creditpb.Feature_FEATURE_UNFINISHED)
			}
			p := t.Sender(&conformancepb.Send{Count: count, PayloadBytes: 100, Ending: conformancepb.Ending_ENDING_LEAVE}, o)
			p.Leave()
			accepted := int64(count)
			if r := p.Report(); r != nil {
				accepted = r.GetSent()
			}
			warned := known && len(p.trailer(unfinishedTrailer)) > 0
			if p.got != accepted && !warned && p.terminal == nil {
				t.Fatalf("got %d elements and OK, want the %d that were accepted, or a trailer", p.got, accepted)
			}
		}
	},
}, {
	Number: 81, Name: "an end that may be early", Only: ClientEnds,
	Proves: "A client that lists FEATURE_UNFINISHED treats OK with that trailer and without Complete as COUNT_MISMATCH. With " +
		"Complete, or without the trailer, OK is the end in order.",
	Run: func(t *T) {
		begin := func() *Peer {
			p := t.Receiver(&conformancepb.Receive{Window: 4}, nil)
			if !p.lists(creditpb.Feature_FEATURE_UNFINISHED) {
				t.Skipf("the client does not list FEATURE_UNFINISHED")
			}
			p.Flow(3)
			return p
		}
		p := begin()
		p.setTrailer(unfinishedTrailer, "1")
		p.Hang(nil)
		p.Received(3, failed)
		if e := p.Report().GetReceiving(); e.GetReason() != "COUNT_MISMATCH" || codes.Code(uint32(e.GetCode())) != codes.DataLoss {
			t.Fatalf("got the end {%v}, want COUNT_MISMATCH, DATA_LOSS", e)
		}
		p = begin()
		p.setTrailer(unfinishedTrailer, "1")
		p.Say(complete(3))
		p.Hang(nil)
		p.Received(3, inOrder)
		p = begin()
		p.Hang(nil)
		p.Received(3, inOrder)
	},
}, {
	Number: 82, Name: "what a handler has consumed", Only: ServerEnds,
	Proves: "If a handler receives and returns OK early, it has reported no more than it has consumed. It has reported less only if " +
		"elements are left, or if a trailer says that it is unsure.",
	Run: func(t *T) {
		const sent = 50
		for _, taken := range []int64{0, 1, 3, 16, 40, sent} {
			p := t.Receiver(&conformancepb.Receive{Window: 64, LeaveAfter: after(taken)}, &creditpb.Open{Features: allFeatures})
			p.Granted(sent)
			p.Elements(sent)
			p.Leave()
			doubt := p.trailer(consumedTrailer)
			unsure := len(doubt) > 0 && doubt[len(doubt)-1] == "unsure"
			if p.consumed > uint64(taken) || taken == sent && p.consumed < sent && !unsure || taken > 0 && p.consumed == 0 {
				t.Fatalf("got consumed %d and %s %q of a handler that has taken %d of %d, want that, or unsure",
					p.consumed, consumedTrailer, doubt, taken, sent)
			}
		}
	},
}, {
	Number: 83, Name: "what a server has not consumed", Only: ClientEnds,
	Proves: "If a server accepts a client's elements and ends with OK before it has consumed them, the client does not report " +
		"success, unless the server is unsure or does not report consumption.",
	Run: func(t *T) {
		const count = 10
		for _, c := range []struct {
			consumed uint64
			doubt    []string
			silent   bool // it does not list FEATURE_CONSUMED
			ok       bool
		}{
			{consumed: 0},
			{consumed: 3},
			{consumed: count, ok: true},
			{consumed: 3, doubt: []string{"unsure"}, ok: true},
			{consumed: 3, doubt: []string{"unsure", "sure"}},
			{silent: true, ok: true},
		} {
			o := initial(count, allFeatures...)
			if c.silent {
				o.Features = nil
			}
			p := t.Sender(&conformancepb.Send{Count: count}, o)
			if !p.lists(creditpb.Feature_FEATURE_CONSUMED) {
				t.Skipf("the client does not list FEATURE_CONSUMED")
			}
			p.Complete(count)
			if c.consumed > 0 {
				p.Say(demand(&creditpb.Request{Consumed: c.consumed}))
			}
			for _, d := range c.doubt {
				p.setTrailer(consumedTrailer, d)
			}
			p.Hang(nil)
			if r := p.Report(); (r.GetSending().GetKind() == inOrder) != c.ok || r.GetSent() != count {
				t.Fatalf("got %d elements sent and the end {%v} with consumed %d and doubt %q, want %d and in order: %t",
					r.GetSent(), r.GetSending(), c.consumed, c.doubt, count, c.ok)
			}
		}
	},
}, {
	Number: 84, Name: "the sender's bound",
	Proves: "A sender that rejects demand beyond a bound announces the bound in max_credit. It does not reject the first demand of " +
		"a client, and adds that demand to the credit as far as the bound allows.",
	Run: func(t *T) {
		const most = 10
		send := func(count int64) *conformancepb.Send {
			return &conformancepb.Send{Count: count, MaxPeerCredit: most, RejectBeyond: true}
		}
		p := t.Sender(send(1), nil)
		if got := p.opened.GetMaxCredit(); got != most {
			t.Fatalf("got Open with max_credit %d, want %d", got, most)
		}
		if t.is(ClientEnds) {
			return // the server of a client knows the bound before its first demand
		}
		for _, n := range []int64{most + 1, 1_000, unbounded} {
			p := t.Sender(send(25), initial(n))
			for p.got < min(25, n) {
				p.Want(1)
			}
			if n > 25 {
				p.Complete(25)
				p.Leave()
			}
		}
	},
}, {
	Number: 85, Name: "a peer that has stopped",
	Proves: "If an end asked for heartbeats and its send is blocked because the peer does not read, the end stops by itself with " +
		"PEER_STALLED.",
	Run: func(t *T) {
		p := t.Begin(&conformancepb.Script{
			Send: &conformancepb.Send{Count: 1_000, PayloadBytes: 64 << 10}, HeartbeatMs: 100,
		}).Open(&creditpb.Open{Features: allFeatures, Initial: &creditpb.Request{N: 1_000}})
		r := p.Reported() // no reader was started, so only the first message was read
		if e := r.GetSending(); r != nil && (e.GetReason() != "PEER_STALLED" || codes.Code(uint32(e.GetCode())) != codes.Unavailable) {
			t.Fatalf("got the end {%v} of sending, want PEER_STALLED", e)
		}
	},
}}

// drainingReceiver runs a session with a receiver that asks, takes some elements and drains, in rounds.
func drainingReceiver(t *T, rounds int, elements int64) {
	p := t.Receiver(&conformancepb.Receive{Requests: []int64{10}, DrainAfter: after(elements), Rounds: int32(rounds)},
		&creditpb.Open{Features: allFeatures})
	burned := int64(0)
	for range rounds {
		for p.granted-burned-p.sent < elements {
			p.Recv("demand")
		}
		p.Elements(int(elements))
		for !p.Recv("a Request with drain").Control.GetRequest().GetDrain() {
		}
		back := p.granted - burned - p.sent
		burned += back
		p.Say(drained(uint64(p.sent), back))
	}
	for over := false; p.cancels == 0 && !over; { // a server that leaves need not send Cancel
		_, over = p.Next()
	}
	p.Say(complete(uint64(p.sent)))
	p.over()
	p.Received(p.sent, isCanceled)
}

// announcement is a heartbeat before an element of that size.
func announcement(size int64) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: &creditpb.Heartbeat{NextBytes: size}}}
}

// wait waits for d. The rule fails if its deadline comes first.
func (t *T) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
		t.Fatalf("got %w, want to wait for %v", t.ctx.Err(), d)
	}
}

// lists reports whether the end's Open lists a feature.
func (p *Peer) lists(f creditpb.Feature) bool {
	for _, listed := range p.opened.GetFeatures() {
		if listed == f {
			return true
		}
	}
	return false
}

// trailer returns the values of a trailer of the server under test.
func (p *Peer) trailer(key string) []string {
	call, ok := p.line.stream.(interface{ Trailer() metadata.MD })
	if !ok {
		return nil
	}
	return call.Trailer().Get(key)
}

// setTrailer sets a trailer of the suite's server.
func (p *Peer) setTrailer(key, value string) {
	if s, ok := p.line.stream.(interface{ SetTrailer(md metadata.MD) }); ok {
		s.SetTrailer(metadata.Pairs(key, value))
	}
}

// Reported is Report for a session that the end under test must end by itself.
func (p *Peer) Reported() *conformancepb.Report {
	var err error
	if p.report, err = p.line.report(p.t.ctx); err != nil {
		p.t.Fatalf("got no report (%w) after %s, want one: the session is to end by itself", err, p.account())
	}
	p.reported = true
	p.Hang(status.Error(codes.Aborted, "the suite has ended the session"))
	return p.report
}
