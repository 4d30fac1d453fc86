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

// A Peer is the suite's end of one stream. It sends only the messages that a rule sends. With every message
// that arrives, it checks the invariants of every conforming end.
type Peer struct {
	t      *T
	line   *line
	as     envelope
	script *conformancepb.Script
	opened *creditpb.Open // from the end under test

	arrivals chan arrival // from the reader; nil before it is started
	ended    error        // why the stream ended; io.EOF means in order
	hung     atomic.Bool
	expire   func() bool // stops the Hang at the rule's deadline
	reported bool
	kept     bool                  // not closed when the next session begins
	report   *conformancepb.Report // set once reported; nil if the end makes no reports

	// Messages from the end.
	got      int64 // elements
	asked    int64 // elements that the end was asked for; saturates
	seen     map[int64]bool
	terminal *creditpb.Control
	last     *creditpb.Drained

	sent     int64 // elements that were sent to the end
	granted  int64 // elements that the end asked for; saturates
	requests int   // Requests with n
	consumed uint64
	cancels  int
	controls int64 // messages from the end without an element
	began    time.Time
}

type arrival struct {
	m   Message
	err error
}

var sessions atomic.Int64

// Begin begins a session in which the end plays the script. When it returns, a client has sent its Open, and
// no other message was sent. It closes earlier sessions that are not kept, because a client runs only a few at
// once.
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

// Send sends raw messages. It reports false if the stream has ended, and reading then returns the reason.
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

// Say sends control messages.
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

// Elements sends the next n elements, regardless of the demand.
func (p *Peer) Elements(n int) (alive bool) {
	for range n {
		if !p.Send(numbered(p.sent+1, p.size())) {
			return false
		}
	}
	return true
}

// size is the size of the payload of elements that the suite sends.
func (p *Peer) size() int { return int(p.script.GetSend().GetPayloadBytes()) }

// next waits for the next arrival.
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

// read starts the reader if it is not running. Nothing is read before.
func (p *Peer) read() {
	if p.arrivals != nil {
		return
	}
	arrivals := make(chan arrival)
	p.arrivals = arrivals
	go func() {
		defer close(arrivals)
		for { // close reads the rest
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

// Recv checks and returns the next message. The rule fails if the stream has ended.
func (p *Peer) Recv(want string) Message {
	m, over := p.Next()
	if over {
		p.t.Fatalf("got the end of the stream (%s) after %s, want %s", describe(p.ended), p.account(), want)
	}
	return m
}

// Next checks and returns the next message. over reports that the stream has ended instead.
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

// close ends the stream in any state and waits for the reader.
func (p *Peer) close() {
	p.expire()
	p.Hang(status.Error(codes.Aborted, "the suite has ended the rule"))
	if p.arrivals == nil {
		return
	}
	for range p.arrivals { //nolint:revive // until it is closed
	}
}

// Hang ends the stream at once. The suite's client cancels the call, and its server returns err.
func (p *Peer) Hang(err error) {
	if p.hung.CompareAndSwap(false, true) {
		p.line.hang(err)
	}
}

// until waits for an arrival. ok is false if the timer fires first.
func (p *Peer) until(timer <-chan time.Time) (a arrival, ok bool) {
	p.read()
	select {
	case a := <-p.arrivals:
		return a, true
	case <-timer:
		return a, false
	}
}
