package rules

import (
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// check checks the invariants of a message that has arrived.
func (p *Peer) check(m Message) {
	if m.Control != nil {
		p.checkControl(m.Control)
	}
	if len(m.Elements) == 0 {
		p.checkRate()
	}
	if len(m.Elements) > 0 && p.terminal != nil {
		p.t.Fatalf("got %v after %v, want nothing but heartbeats", m, p.terminal)
	}
	for _, e := range m.Elements {
		p.got++
		switch {
		case p.got > p.asked && p.asked != unbounded:
			p.t.Fatalf("got %d elements, want at most %d: what was asked for", p.got, p.asked)
		case p.seen[e.Number]:
			p.t.Fatalf("got element %d twice, want it once", e.Number)
		case e.Number != p.got && p.script.GetSend().GetSenders() <= 1:
			p.t.Fatalf("got element %d as the %dth, want them in order", e.Number, p.got)
		}
		if p.script.GetSend().GetSenders() > 1 {
			p.seen[e.Number] = true
		}
	}
}

// checkRate checks that the end obeys the flood rule. It allows a little more than the rule, because it does
// not bound the allowance for time at 1000.
func (p *Peer) checkRate() {
	p.controls++
	if most := 1000 + int64(100*time.Since(p.began).Seconds()) + p.got + p.sent; p.controls > most {
		p.t.Fatalf("got %d control messages after %s, want at most %d: the flood rule", p.controls, p.account(), most)
	}
}

func (p *Peer) checkControl(c *creditpb.Control) {
	switch k := c.GetKind().(type) {
	case *creditpb.Control_Open:
		if p.opened != nil {
			p.t.Fatalf("got a second Open, want one")
		}
		p.opened = k.Open // a rule that breaks the handshake does not call Opened
	case *creditpb.Control_Complete:
		p.checkTerminal(c, k.Complete.GetTotal())
	case *creditpb.Control_Error:
		p.checkTerminal(c, k.Error.GetTotal())
	case *creditpb.Control_Drained:
		p.checkDrained(k.Drained)
	case *creditpb.Control_Request:
		p.grant(k.Request)
	case *creditpb.Control_Cancel:
		p.cancels++
	case *creditpb.Control_Heartbeat:
		if k.Heartbeat.GetSent() > uint64(p.got) {
			p.t.Fatalf("got a heartbeat with sent %d, want at most %d", k.Heartbeat.GetSent(), p.got)
		}
	default:
		p.t.Fatalf("got control of an unknown kind: %v, want none", c)
	}
}

func (p *Peer) checkTerminal(c *creditpb.Control, total uint64) {
	if p.terminal != nil {
		p.t.Fatalf("got %v after %v, want one terminal", c, p.terminal)
	}
	if total != uint64(p.got) {
		p.t.Fatalf("got %v after %d elements, want the total to be that", c, p.got)
	}
	p.terminal = c
}

func (p *Peer) checkDrained(d *creditpb.Drained) {
	switch {
	case p.terminal != nil:
		p.t.Fatalf("got Drained after %v, want nothing but heartbeats", p.terminal)
	case d.GetSent() != uint64(p.got):
		p.t.Fatalf("got Drained with sent %d after %d elements, want the same", d.GetSent(), p.got)
	case p.asked != unbounded && d.GetBurned() != p.asked-p.got:
		p.t.Fatalf("got Drained with sent %d and burned %d, want both together to be %d: what was asked for",
			d.GetSent(), d.GetBurned(), p.asked)
	}
	p.asked, p.last = p.got, d // the rest of the credit is burned
}

// grant checks and counts the demand of the end.
func (p *Peer) grant(r *creditpb.Request) {
	if r == nil {
		return
	}
	switch {
	case r.GetN() < 0 || r.GetN() == 0 && r.GetConsumed() == 0 && !r.GetDrain():
		p.t.Fatalf("got %v, want n of at least 1, consumed or drain", request(r.GetN()))
	case r.GetConsumed() > uint64(p.sent):
		p.t.Fatalf("got consumed %d, want at most %d: what was sent", r.GetConsumed(), p.sent)
	case r.GetConsumed() != 0 && r.GetConsumed() < p.consumed:
		p.t.Fatalf("got consumed %d after %d, want it never to fall", r.GetConsumed(), p.consumed)
	case p.cancels > 0 && r.GetN() > 0:
		p.t.Fatalf("got a Request for %d after Cancel, want none", r.GetN())
	}
	if r.GetN() > 0 {
		p.requests++
		p.granted += min(r.GetN(), unbounded-p.granted)
	}
	p.consumed = max(p.consumed, r.GetConsumed())
}

// note counts a message before it is sent, so that no answer comes before the count.
func (p *Peer) note(m Message) {
	p.sent += int64(len(m.Elements))
	r := m.Control.GetRequest()
	if o := m.Control.GetOpen(); o != nil {
		r = o.GetInitial()
	}
	if n := r.GetN(); n > 0 {
		p.asked += min(n, unbounded-p.asked)
	}
}

// account describes the elements and the demand up to now, for errors.
func (p *Peer) account() string {
	return fmt.Sprintf("%d elements of %d asked for, and %d sent of %d granted", p.got, p.asked, p.sent, p.granted)
}

// describe returns a short description of the end of a stream.
func describe(err error) string {
	if errors.Is(err, io.EOF) {
		return "in order"
	}
	if reason := reasonOf(err); reason != "" {
		return fmt.Sprintf("%v %s: %s", status.Code(err), reason, status.Convert(err).Message())
	}
	return fmt.Sprint(err)
}

// reasonOf returns the reason of a violation, or "" for another error.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "weir" {
			return info.GetReason()
		}
	}
	return ""
}
