package rules

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A Peer is the suite's end of one stream. It does no more than it is told, and checks with every
// message that arrives what holds for every conforming end at any time.
type Peer struct {
	t      *T
	line   *line
	as     envelope
	script *conformancepb.Script
	opened *creditpb.Open // the end's

	arrivals chan arrival // from the reader; nil: there is none yet
	ended    error        // how the stream ended; io.EOF is in order
	hung     atomic.Bool
	expire   func() bool // stops the hanging up at the rule's deadline
	reported bool
	kept     bool                  // while others begin
	report   *conformancepb.Report // once reported; nil: the end has none

	// What the end sent.
	got      int64 // elements
	asked    int64 // what it was asked for; saturates
	seen     map[int64]bool
	terminal *creditpb.Control
	last     *creditpb.Drained

	sent     int64 // elements to the end
	granted  int64 // what it asked for
	requests int   // Requests with n
	consumed uint64
	cancels  int
	controls int64 // messages of the end's without an element
	began    time.Time
}

type arrival struct {
	m   Message
	err error
}

var sessions atomic.Int64

// Begin begins a session in which the end does what the script says. A client has sent its Open
// then, and nothing else was said. It ends the sessions before it, but for those that are kept:
// a client has few at once.
func (t *T) Begin(s *conformancepb.Script) *Peer {
	for _, p := range t.peers {
		if !p.kept {
			p.close()
		}
	}
	t.peers = slices.DeleteFunc(t.peers, func(p *Peer) bool { return !p.kept })
	s.Id = fmt.Sprintf("%d", sessions.Add(1))
	l, err := t.target.begin(t.ctx, s)
	if err != nil {
		t.Fatalf("beginning a session: got %w, want none", err)
	}
	p := &Peer{t: t, line: l, as: envelopeOf(t.target.Kind()), script: s, seen: map[int64]bool{}, began: time.Now()}
	t.peers = append(t.peers, p)
	p.expire = context.AfterFunc(t.ctx, func() { p.Hang(status.FromContextError(t.ctx.Err()).Err()) })
	return p
}

// Open is the handshake: both sides say Open. o may be nil; what it leaves out follows from
// the script.
func (p *Peer) Open(o *creditpb.Open) *Peer {
	o = p.defaults(o)
	p.Greet(opening(o))
	p.Opened()
	return p
}

// defaults fills in an Open.
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

// Greet sends what is to be the first message, with the script if there is one to send.
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

// Send sends raw messages. Where the stream is over, it does nothing, and what is read will say why.
func (p *Peer) Send(messages ...Message) (alive bool) {
	for _, m := range messages {
		out := p.as.wrap(m)
		if m.Verbatim != nil {
			out = verbatim(m.Verbatim)
		}
		p.note(m)
		if p.hung.Load() || p.line.stream.SendMsg(out) != nil {
			return false
		}
	}
	return true
}

// note keeps account of what is sent, before it is, so that nothing can come too soon.
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

// Say sends control.
func (p *Peer) Say(controls ...*creditpb.Control) (alive bool) {
	for _, c := range controls {
		if !p.Send(Message{Control: c}) {
			return false
		}
	}
	return true
}

// Request asks for n more.
func (p *Peer) Request(n int64) { p.Say(request(n)) }

// Elements sends the next n elements, whatever the end asked for.
func (p *Peer) Elements(n int) (alive bool) {
	for range n {
		if !p.Send(numbered(p.sent+1, p.size())) {
			return false
		}
	}
	return true
}

// size is the payload of elements that the suite sends.
func (p *Peer) size() int { return int(p.script.GetSend().GetPayloadBytes()) }

// next waits for what arrives next.
func (p *Peer) next() arrival {
	p.read()
	select {
	case a := <-p.arrivals:
		return a
	case <-p.t.ctx.Done():
		p.t.Fatalf("got nothing more within the rule's time, after %s; want the next message", p.account())
		return arrival{}
	}
}

// read starts the reader. Before it is called nothing is read.
func (p *Peer) read() {
	if p.arrivals != nil {
		return
	}
	arrivals := make(chan arrival)
	p.arrivals = arrivals
	go func() {
		defer close(arrivals)
		for { // close reads until the end
			m := p.as.fresh()
			err := p.line.stream.RecvMsg(m)
			a := arrival{err: err}
			if err == nil {
				a.m = p.as.unwrap(m)
			}
			arrivals <- a
			if err != nil {
				return
			}
		}
	}()
}

// account says what was exchanged up to now.
func (p *Peer) account() string {
	return fmt.Sprintf("%d elements of %d asked for, and %d sent of %d granted", p.got, p.asked, p.sent, p.granted)
}

// Recv returns the next message, checked. The end of the stream is an error of the rule.
func (p *Peer) Recv(want string) Message {
	m, over := p.Next()
	if over {
		p.t.Fatalf("got the end of the stream (%s) after %s, want %s", describe(p.ended), p.account(), want)
	}
	return m
}

// describe says how a stream ended, in few words.
func describe(err error) string {
	if errors.Is(err, io.EOF) {
		return "in order"
	}
	if reason := reasonOf(err); reason != "" {
		return fmt.Sprintf("%v %s: %s", status.Code(err), reason, status.Convert(err).Message())
	}
	return fmt.Sprint(err)
}

// Next returns the next message, checked, or that there is none: the stream is over.
func (p *Peer) Next() (m Message, over bool) {
	if p.ended != nil {
		return m, true
	}
	a := p.next()
	if a.err != nil {
		p.ended = a.err
		return m, true
	}
	p.check(a.m)
	return a.m, false
}

// check checks what holds at any time.
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

// checkRate checks that the end keeps to the flood rule itself. It allows a little more: saved time does
// not stop at 1000 here.
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
		p.opened = k.Open // a rule that breaks the handshake does not wait for it
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
	p.asked, p.last = p.got, d // the rest is burned
}

// grant keeps account of what the end asks for.
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

// close ends the stream, whatever its state, and waits for the reader.
func (p *Peer) close() {
	p.expire()
	p.Hang(status.Error(codes.Aborted, "the suite has ended the rule"))
	if p.arrivals == nil {
		return
	}
	for range p.arrivals { //nolint:revive // until it is closed
	}
}

// Hang ends the stream at once: a client cancels the call, a server returns err.
func (p *Peer) Hang(err error) {
	if p.hung.CompareAndSwap(false, true) {
		p.line.hang(err)
	}
}

// reasonOf returns the reason of a violation.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "weir" {
			return info.GetReason()
		}
	}
	return ""
}

// until waits for an arrival until the time is up.
func (p *Peer) until(timer <-chan time.Time) (a arrival, ok bool) {
	p.read()
	select {
	case a := <-p.arrivals:
		return a, true
	case <-timer:
		return a, false
	}
}
