package rules

import (
	"google.golang.org/grpc/metadata"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// Open completes the handshake, in which both sides send Open. o may be nil. Roles and versions that it leaves
// out follow from the script.
func (p *Peer) Open(o *creditpb.Open) *Peer {
	o = p.defaults(o)
	p.Greet(opening(o))
	p.Opened()
	return p
}

// defaults returns o, or a new Open, with the missing versions and roles filled in.
func (p *Peer) defaults(o *creditpb.Open) *creditpb.Open {
	if o == nil {
		o = &creditpb.Open{}
	}
	if o.GetMinVersion() == 0 && o.GetMaxVersion() == 0 {
		o.MinVersion, o.MaxVersion = 1, 1
	}
	o.WillReceive = o.GetWillReceive() || p.script.GetSend() != nil
	o.WillSend = o.GetWillSend() || p.script.GetReceive() != nil
	return o
}

// Greet sends c as the first message. To a server it adds the script.
func (p *Peer) Greet(c *creditpb.Control) {
	m := Message{Control: c}
	if p.line.greeting == nil {
		m.Script = p.script
	}
	p.Send(m)
}

// Opened waits for the end's Open and checks it.
func (p *Peer) Opened() {
	m := p.first()
	p.opened = m.Control.GetOpen()
	switch o := p.opened; {
	case o == nil:
		p.t.Fatalf("got %v as the first message, want Open", m)
	case len(m.Elements) > 0:
		p.t.Fatalf("got Open with an element, want none, or the script of a client")
	case o.GetWillSend() != (p.script.GetSend() != nil), o.GetWillReceive() != (p.script.GetReceive() != nil):
		p.t.Fatalf("got Open with will_send %t, will_receive %t, want what the script says: %t, %t",
			o.GetWillSend(), o.GetWillReceive(), p.script.GetSend() != nil, p.script.GetReceive() != nil)
	case o.GetMinVersion() > 1 || o.GetMaxVersion() < 1 && o.GetMaxVersion() != 0:
		p.t.Fatalf("got versions %d to %d, want 1 among them", o.GetMinVersion(), o.GetMaxVersion())
	}
	if call, ok := p.line.stream.(interface{ Header() (metadata.MD, error) }); ok {
		md, err := call.Header()
		if got := md.Get("weir-credit-version"); err != nil || len(got) != 1 || got[0] != "1" {
			p.t.Fatalf("got the response header weir-credit-version %q, %v, want 1", got, err)
		}
	}
	p.grant(p.opened.GetInitial())
}

// first returns the end's first message.
func (p *Peer) first() Message {
	if g := p.line.greeting; g != nil {
		return *g
	}
	a := p.next()
	if a.err != nil {
		p.t.Fatalf("got the end of the stream (%v), want Open", a.err)
	}
	return a.m
}
