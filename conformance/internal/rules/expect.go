package rules

import (
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// Sender begins a session with an end that only sends.
func (t *T) Sender(s *conformancepb.Send, o *creditpb.Open) *Peer {
	return t.Begin(&conformancepb.Script{Send: s}).Open(o)
}

// Receiver begins a session with an end that only receives.
func (t *T) Receiver(r *conformancepb.Receive, o *creditpb.Open) *Peer {
	return t.Begin(&conformancepb.Script{Receive: r}).Open(o)
}

// Duplex begins a session with an end that does both.
func (t *T) Duplex(s *conformancepb.Send, r *conformancepb.Receive, o *creditpb.Open) *Peer {
	return t.Begin(&conformancepb.Script{Send: s, Receive: r}).Open(o)
}

// initial is an Open with a first demand.
func initial(n int64, features ...creditpb.Feature) *creditpb.Open {
	return &creditpb.Open{Initial: &creditpb.Request{N: n}, Features: features}
}

// Want reads until n more elements have come.
func (p *Peer) Want(n int64) {
	for want := p.got + n; p.got < want; {
		m := p.Recv("more elements")
		if p.terminal != nil {
			p.t.Fatalf("got %v after %s, want %d elements", m, p.account(), want)
		}
	}
}

// Quiet checks that the end sends no element and no terminal for the time Settle. Demand and heartbeats are
// allowed.
func (p *Peer) Quiet() {
	timer := time.NewTimer(p.t.Settle)
	defer timer.Stop()
	for p.ended == nil {
		a, ok := p.until(timer.C)
		switch {
		case !ok:
			return
		case a.err != nil:
			p.t.Fatalf("got the end of the stream (%s) after %s, want nothing", describe(a.err), p.account())
		}
		got, terminal := p.got, p.terminal
		if p.check(a.m); p.got != got || p.terminal != terminal {
			p.t.Fatalf("got %v after %s, want nothing", a.m, p.account())
		}
	}
	p.t.Fatalf("got the end of the stream (%s) after %s, want nothing", describe(p.ended), p.account())
}

// Complete reads until Complete, and checks its total.
func (p *Peer) Complete(total int64) {
	for p.terminal == nil {
		p.Recv("Complete")
	}
	if c := p.terminal.GetComplete(); c == nil || int64(c.GetTotal()) != total {
		p.t.Fatalf("got %v after %s, want Complete with a total of %d", p.terminal, p.account(), total)
	}
}

// Failure reads until Error, and checks that it is the Error of the script, with that total.
func (p *Peer) Failure(total int64) {
	for p.terminal == nil {
		p.Recv("Error")
	}
	e := p.terminal.GetError()
	if e.GetCode() != failureCode || e.GetMessage() != failureMessage || int64(e.GetTotal()) != total {
		p.t.Fatalf("got %v after %s, want Error with code %d, message %q and a total of %d",
			p.terminal, p.account(), failureCode, failureMessage, total)
	}
}

// Flow sends elements until n were sent in total, within the demand.
func (p *Peer) Flow(n int64) {
	for p.sent < n {
		p.Granted(p.sent + 1)
		if !p.Elements(int(min(n, p.granted) - p.sent)) {
			p.over()
			p.t.Fatalf("got the end of the stream (%s) after %s, want to send %d elements", describe(p.ended), p.account(), n)
		}
	}
}

// Granted reads until the end has asked for that many elements in total.
func (p *Peer) Granted(total int64) {
	for p.granted < total {
		p.Recv("more demand")
	}
}

// GrantedAtMost checks, after Quiet, that the end has asked for at most that many elements.
func (p *Peer) GrantedAtMost(most int64) {
	p.Quiet()
	if p.granted > most {
		p.t.Fatalf("got demand for %d elements, want at most %d", p.granted, most)
	}
}

// Canceled reads until Cancel.
func (p *Peer) Canceled() {
	for p.cancels == 0 {
		p.Recv("Cancel")
	}
}

// over reads until the stream has ended.
func (p *Peer) over() {
	for {
		if _, over := p.Next(); over {
			return
		}
	}
}

// HalfClose half-closes the stream of the suite's client. It does nothing on the suite's server.
func (p *Peer) HalfClose() {
	if p.line.half != nil {
		_ = p.line.half() // reading finds the error
	}
}

// Leave ends the stream in order. A server under test must end with OK after the suite's client half-closes. A
// client under test must half-close, and the suite's server then ends with OK.
func (p *Peer) Leave() {
	p.HalfClose()
	p.over()
	if !errors.Is(p.ended, io.EOF) {
		p.t.Fatalf("got the end of the stream (%s) after %s, want it in order", describe(p.ended), p.account())
	}
	p.Hang(nil)
}

// codeOf has the status code of each reason.
var codeOf = map[string]codes.Code{
	"INVALID_DEMAND": codes.InvalidArgument, "INVALID_CONSUMED": codes.InvalidArgument,
	"UNEXPECTED_FRAME": codes.FailedPrecondition, "VERSION": codes.FailedPrecondition, "AFTER_TERMINAL": codes.FailedPrecondition,
	"DEMAND_TOO_LARGE": codes.ResourceExhausted, "CREDIT_EXCEEDED": codes.ResourceExhausted,
	"BYTES_EXCEEDED": codes.ResourceExhausted, "MESSAGE_TOO_LARGE": codes.ResourceExhausted, "CONTROL_FLOOD": codes.ResourceExhausted,
	"COUNT_MISMATCH":    codes.DataLoss,
	"HANDSHAKE_TIMEOUT": codes.DeadlineExceeded, "FIRST_REQUEST_TIMEOUT": codes.DeadlineExceeded, "CREDIT_STARVED": codes.DeadlineExceeded,
	"PEER_STALLED": codes.Unavailable,
}

// Violation checks that the end has ended the stream for that reason, and that its application was told. A
// server must end with the status of the reason, and a client must cancel.
func (p *Peer) Violation(reason string) *conformancepb.Report {
	p.over()
	if p.t.is(ServerEnds) {
		if got := status.Code(p.ended); got != codeOf[reason] || reasonOf(p.ended) != reason {
			p.t.Fatalf("got the end of the stream (%s) after %s, want %v %s", describe(p.ended), p.account(), codeOf[reason], reason)
		}
	} else if !p.aborted() {
		p.t.Fatalf("got the end of the stream (%s) after %s, want the client to cancel: %s", describe(p.ended), p.account(), reason)
	}
	r := p.Report()
	for _, e := range []*conformancepb.End{r.GetSending(), r.GetReceiving()} {
		if e.GetReason() == reason && codes.Code(uint32(e.GetCode())) == codeOf[reason] {
			return r
		}
	}
	if r != nil {
		p.t.Fatalf("got sending {%v} and receiving {%v} reported, want %v %s", r.GetSending(), r.GetReceiving(), codeOf[reason], reason)
	}
	return r
}

// aborted reports whether a client has canceled the call. A client that sends must not half-close before a
// terminal, because that would mean Complete. Some transports half-close when they cancel, so their clients
// send Error first.
func (p *Peer) aborted() bool {
	if errors.Is(p.ended, io.EOF) && (p.script.GetSend() == nil || p.terminal != nil) {
		select {
		case <-p.line.stream.Context().Done():
			return true
		case <-p.t.ctx.Done():
			return false
		}
	}
	return status.Code(p.ended) == codes.Canceled
}

// Report ends the stream if it has not ended, and returns the report of the application. It returns nil if the
// end under test makes no reports.
func (p *Peer) Report() *conformancepb.Report {
	p.Hang(nil)
	if !p.reported {
		var err error
		if p.report, err = p.line.report(p.t.ctx); err != nil {
			p.t.Fatalf("got no report (%v) after %s, want one: the session is over", err, p.account())
		}
		p.reported = true
	}
	return p.report
}

// Received checks the number of elements that the application received, and the kind of the end. Without a
// report it does nothing.
func (p *Peer) Received(n int64, kind conformancepb.EndKind) {
	r := p.Report()
	if r == nil {
		return
	}
	e := r.GetReceiving()
	if r.GetReceived() != n || r.GetOutOfOrder() != 0 || e.GetKind() != kind || e.GetEnds() != 1 {
		p.t.Fatalf("got %d elements, out of order %d, and the end {%v} reported; want %d in order, and %v once",
			r.GetReceived(), r.GetOutOfOrder(), e, n, kind)
	}
}

// Sent checks the number of elements that the application sent, and the kind of the end. Without a report it
// does nothing.
func (p *Peer) Sent(n int64, kind conformancepb.EndKind) {
	r := p.Report()
	if r != nil && (r.GetSent() != n || r.GetSending().GetKind() != kind) {
		p.t.Fatalf("got %d elements sent and the end {%v} reported, want %d and %v", r.GetSent(), r.GetSending(), n, kind)
	}
}

// The kinds of ends that a report names.
const (
	none       = conformancepb.EndKind_END_KIND_UNSPECIFIED
	inOrder    = conformancepb.EndKind_END_KIND_COMPLETE
	isCanceled = conformancepb.EndKind_END_KIND_CANCELED
	failed     = conformancepb.EndKind_END_KIND_ERROR
)
