package rules

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
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

// Recv returns the next message, checked. The end of the stream is an error of the rule.
func (p *Peer) Recv(want string) Message {
	m, over := p.Next()
	if over {
		p.t.Fatalf("got the end of the stream (%s) after %s, want %s", describe(p.ended), p.account(), want)
	}
	return m
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
