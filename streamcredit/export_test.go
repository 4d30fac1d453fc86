package streamcredit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// A Scripted is a client's session without a transport: the test is its read loop.
type Scripted struct {
	s *session[int, int]
	w *noted
}

// NewScripted begins one that sends and receives. then is called with each control message when
// it is written.
func NewScripted(ctx context.Context, then func(*creditpb.Control)) (*Scripted, error) {
	c, err := newConfig(role{sends: true, receives: true}, []DuplexOption(nil))
	if err != nil {
		return nil, err
	}
	w := &noted{then: then}
	s := newSession(ctx, w, func() {}, c)
	s.w.state = writerOpen
	close(s.done)
	return &Scripted{s, w}, nil
}

// Wrote returns what was written.
func (p *Scripted) Wrote() []string { return p.w.wrote }

// Sender is that of the session.
func (p *Scripted) Sender() *Sender[int] { return &Sender[int]{p.s} }

// Beat leaves an answer to a heartbeat to be written.
func (p *Scripted) Beat() { p.s.w.pending.heartbeat(p.s.w.beat()) }

// Canceled has the server want no more.
func (p *Scripted) Canceled() { p.s.out.end(ledger.OutCancel, &canceled{}) }

// Completed has the server's direction end.
func (p *Scripted) Completed() error {
	if v := p.s.in.terminal(io.EOF, 0); v != nil {
		return v
	}
	p.s.settle()
	return nil
}

// noted is a wire that notes what is written.
type noted struct {
	wire[int, int] // nil

	wrote []string
	then  func(*creditpb.Control)
}

func (w *noted) writeControl(c *creditpb.Control) error {
	if slices.Contains(w.wrote, "half-close") {
		return errors.New("SendMsg called after CloseSend")
	}
	w.wrote = append(w.wrote, fmt.Sprintf("%T", c.GetKind()))
	w.then(c)
	return nil
}

func (w *noted) writeHalfClose() error {
	w.wrote = append(w.wrote, "half-close")
	return nil
}

func (*noted) check(int) error             { return nil }
func (*noted) sizeIn(int) int              { return 0 }
func (*noted) bind(func(error), func())    {}
func (*noted) join()                       {}
func (*noted) crowded() bool               { return false }
func (*noted) flush(context.Context) error { return nil }

// WriterAllows returns the frames that a writer may write, by the name of its state, while the
// direction in which it sends has gone through events. There is no direction without events.
func WriterAllows(events ...ledger.OutEvent) map[string][]string {
	allowed := map[string][]string{}
	for state := writerOpening; state <= writerHalfClosed; state++ {
		w := &writer[int]{state: state}
		if len(events) > 0 {
			w.out = newOutgoing(&config{})
			w.out.ledger.Request(2, 0)
			w.out.play(events)
		}
		for f, name := range []string{"Open", "control", "element", "terminal", "half-close"} {
			if w.mayWrite(frame(f)) {
				allowed[state.String()] = append(allowed[state.String()], name)
			}
		}
	}
	return allowed
}

func (o *outgoing) play(events []ledger.OutEvent) {
	for _, e := range events {
		switch e {
		case ledger.OutTerminal:
			o.close()
		case ledger.OutHalfClose:
			o.halfClosed()
		case ledger.OutBurn:
			o.burn()
		case ledger.OutCancel, ledger.OutReturn, ledger.OutFail:
			o.end(e, errPeace)
		default:
			if _, ok, _ := o.take(func() int { return 0 }); ok {
				o.wrote()
			}
		}
	}
}

// A Counted is an open stream of a meter without a peer. It has sent Sent elements.
type Counted struct {
	Sent   uint64
	Window int64
	Looked func() // called when a look measures or describes it, or nil
}

func (c *Counted) measure(m *MeterStats) {
	m.Sent += c.Sent
	m.Window += c.Window
	if c.Looked != nil {
		c.Looked()
	}
}

func (c *Counted) describe() StreamState { return StreamState{} }

// Join opens c at the meter.
func (m *Meter) Join(c *Counted) { m.join(c) }

// Leave ends c at the meter.
func (m *Meter) Leave(c *Counted) { m.leave(c) }

// OnRest has f called in each rest of a look at a meter, until restore is called.
func OnRest(f func()) (restore func()) {
	rested = f
	return func() { rested = nil }
}
