package ledger_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// purse is a budget that counts what a ledger has of it.
type purse struct{ credit, held, bytes, most int64 }

func (p *purse) Take(n int64) int64 {
	n = max(0, min(n, p.most-p.credit-p.held))
	p.credit += n
	return n
}
func (p *purse) Arrived(size int64)  { p.credit--; p.held++; p.bytes += size }
func (p *purse) Consumed(n, b int64) { p.held -= n; p.bytes -= b }
func (p *purse) Burned(n int64)      { p.credit -= n }
func (*purse) Want(bool)             {}
func (p *purse) Close()              { p.credit = 0 }

// A line carries frames one way, in order.
type line[F any] struct{ frames []F }

func (l *line[F]) write(f F) { l.frames = append(l.frames, f) }

func (l *line[F]) read() (f F, ok bool) {
	if len(l.frames) == 0 {
		return f, false
	}
	f, l.frames = l.frames[0], l.frames[1:]
	return f, true
}

// down is a frame of the sender's: an element, Drained, or Complete.
type down struct {
	size     int64
	drained  bool
	complete bool
	sent     uint64
	burned   int64
}

// pair is a direction: the ledgers of both ends, with lines between them.
type pair struct {
	out      ledger.Out
	in       ledger.In
	up       line[ledger.Request]
	down     line[down]
	purse    purse
	consumed int64 // by the application
	burned   int64
	asked    int64 // everything that the receiver has asked for
	owed     int   // Drained that the sender owes
	window   int64 // 0: manual demand
}

var errEnd = errors.New("the end")

func newPair(t *rapid.T) *pair {
	p := &pair{window: rapid.SampledFrom([]int64{0, 1, 2, 3, 7, 64}).Draw(t, "window")}
	p.purse.most = rapid.SampledFrom([]int64{1, 5, 1 << 40}).Draw(t, "budget")
	p.out.MaxCredit = rapid.SampledFrom([]int64{0, 1, 5}).Draw(t, "largest credit")
	p.out.Left = errEnd
	if p.window > 0 {
		p.in.Window = ledger.Fixed(p.window, -1)
	}
	p.in.ByteWindow = rapid.SampledFrom([]int64{0, 1, 100}).Draw(t, "byte window")
	p.in.Budget = &p.purse
	p.in.Agree(true, p.out.MaxCredit)
	p.out.Agree(0, p.in.ByteWindow, true)
	if p.asked = p.in.First(); p.asked > 0 {
		p.up.write(ledger.Request{N: p.asked})
	}
	return p
}

func (p *pair) ask(t *rapid.T, n int64, drain bool) {
	if r, ok := p.in.Ask(n, drain, p.consumed); ok {
		if n > 0 && !r.Drain && p.in.State() == ledger.InDraining {
			t.Fatalf("asked for %d while draining", n)
		}
		p.asked += r.N
		p.up.write(r)
	}
}

// replenish asks for what is due.
func (p *pair) replenish(t *rapid.T) {
	due := p.in.Due(p.consumed)
	buffered := p.in.Received() - p.consumed
	due += p.in.Replenish(p.consumed, buffered, func() time.Duration { return 0 })
	if due > 0 || p.in.ReportDue() || p.in.FinalDue(p.consumed) {
		p.ask(t, due, false)
	}
}

func (p *pair) send(t *rapid.T) {
	size := rapid.Int64Range(0, 150).Draw(t, "size")
	free := p.out.Free()
	_, verdict := p.out.Take(func() int { return int(size) })
	if (verdict == ledger.Taken) != free {
		t.Fatalf("Take: got %v while Free is %t", verdict, free)
	}
	if verdict != ledger.Taken {
		return
	}
	if rapid.IntRange(0, 9).Draw(t, "the write fails") == 0 {
		p.out.Restore(size * min(1, p.in.ByteWindow))
		return
	}
	p.out.Wrote()
	p.down.write(down{size: size})
}

func (p *pair) readDown(t *rapid.T) {
	f, ok := p.down.read()
	if !ok {
		return
	}
	var v *ledger.Violation
	switch {
	case f.complete:
		v = p.in.Terminal(errEnd, f.sent)
	case f.drained:
		_, _, v = p.in.Drained(f.sent, false)
		p.burned += f.burned
	default:
		if v = p.in.Arrive(1); v == nil && !p.in.State().Drops() {
			v = p.in.Weigh(f.size, func() int64 { return p.consumed })
		} else if v == nil {
			p.consumed++
			p.in.Settle(p.consumed)
		}
	}
	if v != nil {
		t.Fatalf("a frame of an honest sender, %+v: got %+v", f, v)
	}
	p.replenish(t)
}

func (p *pair) readUp(t *rapid.T) {
	r, ok := p.up.read()
	if !ok {
		return
	}
	if _, v := p.out.Request(r.N, r.Consumed); v != nil {
		t.Fatalf("a Request of an honest receiver, %+v: got %+v", r, v)
	}
	if r.Drain {
		p.owed++
	}
}

func (p *pair) burn() {
	if p.owed == 0 || !p.out.State().Terminates() {
		return
	}
	p.owed--
	sent, burned := p.out.Burn()
	p.down.write(down{drained: true, sent: sent, burned: burned})
}

func (p *pair) consume(t *rapid.T) {
	if p.consumed < p.in.Received() {
		p.consumed++
		p.in.Settle(p.consumed)
		p.replenish(t)
	}
}

// check looks at what must hold at any moment.
func (p *pair) check(t *rapid.T) {
	switch {
	case int64(p.out.Sent()) > p.asked:
		t.Fatalf("sent %d, asked for %d", p.out.Sent(), p.asked)
	case p.out.Granted() < int64(p.out.Sent()):
		t.Fatalf("sent %d of %d granted", p.out.Sent(), p.out.Granted())
	case p.out.Consumed() > p.out.Sent():
		t.Fatalf("reported %d of %d sent", p.out.Consumed(), p.out.Sent())
	case p.in.State().Live() && p.in.Outstanding() < 0:
		t.Fatalf("outstanding %d", p.in.Outstanding())
	case p.window > 0 && p.in.State().Live() && p.in.Outstanding()+p.in.Received()-p.consumed > p.window:
		t.Fatalf("asked for %d and not consumed %d, with a window of %d", p.in.Outstanding(), p.in.Received()-p.consumed, p.window)
	case p.out.MaxCredit > 0 && p.out.Credit() > p.out.MaxCredit:
		t.Fatalf("credit %d, want at most %d", p.out.Credit(), p.out.MaxCredit)
	case p.purse.credit < 0 || p.purse.held < 0 || p.purse.bytes < 0 || p.purse.credit+p.purse.held > p.purse.most:
		t.Fatalf("the budget has lent %+v", p.purse)
	}
}

// Two honest ledgers agree, whatever happens and in whatever order frames are read.
func TestHonestLedgersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		actions := map[string]func(*rapid.T){
			"":         p.check,
			"send":     p.send,
			"readDown": p.readDown,
			"readUp":   p.readUp,
			"burn":     func(*rapid.T) { p.burn() },
			"consume":  p.consume,
			"request": func(t *rapid.T) {
				if p.window == 0 && p.in.State().Live() {
					p.in.Owe(rapid.Int64Range(1, 20).Draw(t, "n"))
					p.replenish(t)
				}
			},
			"drain": func(t *rapid.T) {
				if p.in.State().Asks() {
					p.in.Forget()
					p.ask(t, 0, true)
				}
			},
			"close": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "really") == 0 {
					if sent, ok := p.out.Close(errEnd); ok {
						p.down.write(down{complete: true, sent: sent})
					}
				}
			},
			"cancel": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "really") == 0 && !p.in.State().Drops() {
					p.in.Close(errEnd)
					p.consumed = p.in.Received()
					p.in.Settle(p.consumed)
				}
			},
		}
		t.Repeat(actions)
		p.settle(t)
	})
}

// settle lets both ends come to rest, and checks that nothing is lost.
func (p *pair) settle(t *rapid.T) {
	if sent, ok := p.out.Close(errEnd); ok {
		for p.owed > 0 {
			p.owed-- // the terminal answers them
		}
		p.down.write(down{complete: true, sent: sent})
	}
	for len(p.down.frames)+len(p.up.frames) > 0 || p.consumed < p.in.Received() {
		p.readUp(t)
		p.readDown(t)
		p.consume(t)
		p.check(t)
	}
	p.replenish(t)
	p.readUp(t)
	if p.in.Received() != int64(p.out.Sent()) || p.consumed != p.in.Received() {
		t.Fatalf("at the end: sent %d, received %d, consumed %d; want the same", p.out.Sent(), p.in.Received(), p.consumed)
	}
	if !p.in.State().Terminated() {
		t.Fatalf("at the end: %v, want the terminal to be in", p.in.State())
	}
	if p.in.State() == ledger.InEnded && p.out.Unconsumed() != 0 {
		t.Fatalf("at the end: %d unconsumed, want all reported", p.out.Unconsumed())
	}
	if p.purse.held != 0 || p.purse.bytes != 0 || p.purse.credit != 0 {
		t.Fatalf("at the end: the budget has lent %+v, want nothing", p.purse)
	}
}

// A dishonest sender is found out by the first wrong frame, in each state that may see one.
func TestDishonestSenders(t *testing.T) {
	for name, c := range map[string]struct {
		play func(l *ledger.In) *ledger.Violation
		want string
	}{
		"an element without credit": {func(l *ledger.In) *ledger.Violation { return l.Arrive(1) }, ledger.CreditExceeded},
		"one more than the credit": {func(l *ledger.In) *ledger.Violation {
			l.Ask(2, false, 0)
			_ = l.Arrive(2)
			return l.Arrive(1)
		}, ledger.CreditExceeded},
		"an element after the end": {func(l *ledger.In) *ledger.Violation {
			l.Ask(2, false, 0)
			_ = l.Terminal(errEnd, 0)
			return l.Arrive(1)
		}, ledger.AfterTerminal},
		"a second end":  {func(l *ledger.In) *ledger.Violation { _ = l.Terminal(errEnd, 0); return l.Terminal(errEnd, 0) }, ledger.AfterTerminal},
		"a wrong total": {func(l *ledger.In) *ledger.Violation { return l.Terminal(errEnd, 1) }, ledger.CountMismatch},
		"Drained unasked": {func(l *ledger.In) *ledger.Violation {
			_, _, v := l.Drained(0, false)
			return v
		}, ledger.UnexpectedFrame},
		"Drained with a wrong count": {func(l *ledger.In) *ledger.Violation {
			l.Ask(0, true, 0)
			_, _, v := l.Drained(3, false)
			return v
		}, ledger.CountMismatch},
		"Drained after the end": {func(l *ledger.In) *ledger.Violation {
			l.Ask(0, true, 0)
			_ = l.Terminal(errEnd, 0)
			_, _, v := l.Drained(0, false)
			return v
		}, ledger.AfterTerminal},
		"beyond the byte window": {func(l *ledger.In) *ledger.Violation {
			l.ByteWindow = 10
			l.Ask(5, false, 0)
			_ = l.Arrive(2)
			if v := l.Weigh(11, func() int64 { return 0 }); v != nil {
				return nil // the first one may be larger
			}
			return l.Weigh(1, func() int64 { return 0 })
		}, ledger.BytesExceeded},
		"too large": {func(l *ledger.In) *ledger.Violation {
			l.MaxBytes = 10
			l.Ask(5, false, 0)
			_ = l.Arrive(1)
			return l.Weigh(11, func() int64 { return 0 })
		}, ledger.MessageTooLarge},
	} {
		if v := c.play(&ledger.In{}); v == nil || v.Reason != c.want {
			t.Errorf("%s: got %+v, want %s", name, v, c.want)
		}
	}
	for name, c := range map[string]struct {
		consumed uint64
		after    func(o *ledger.Out)
		want     string
	}{
		"more consumed than sent": {2, func(*ledger.Out) {}, ledger.InvalidConsumed},
		"less than before":        {1, func(o *ledger.Out) { o.Take(func() int { return 0 }); o.Wrote(); _, _ = o.Request(0, 2) }, ledger.InvalidConsumed},
		"after the half-close":    {1, func(o *ledger.Out) { o.HalfClose() }, ledger.AfterTerminal},
	} {
		o := &ledger.Out{}
		_, _ = o.Request(5, 0)
		o.Take(func() int { return 0 })
		o.Wrote()
		c.after(o)
		if _, v := o.Request(0, c.consumed); v == nil || v.Reason != c.want {
			t.Errorf("%s: got %+v, want %s", name, v, c.want)
		}
	}
}
