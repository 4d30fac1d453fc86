package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/streamcredit"
)

// This file has what the tests share that play random scripts.

// A scripted plays a script step by step, and compares what it sees with what must hold.
type scripted[S any] interface {
	step(s S) error
	check() error  // is called when all is at rest
	settle() error // ends what has not ended, and looks for what is lost
}

// A scriptStep is one step of a script. The next one comes in between if it is hasty. Otherwise
// it comes when all is at rest.
type scriptStep interface{ hasty() bool }

// playScript plays a script and returns what went wrong first. It runs in a bubble.
func playScript[S scriptStep](m scripted[S], script []S) error {
	for i, s := range script {
		if err := m.step(s); err != nil {
			return fmt.Errorf("step %d, %v: %w", i, s, err)
		}
		if s.hasty() {
			continue
		}
		synctest.Wait()
		if err := m.check(); err != nil {
			return fmt.Errorf("after step %d, %v: %w", i, s, err)
		}
	}
	synctest.Wait()
	if err := m.check(); err != nil {
		return fmt.Errorf("after the last step: %w", err)
	}
	if err := m.settle(); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	return nil
}

// checkScripts looks for a script of at most so many steps that play finds a fault with.
func checkScripts[H, S any](
	t *testing.T, how *rapid.Generator[H], step *rapid.Generator[S], longest int, play func(t testing.TB, how H, script []S) error,
) {
	t.Helper()
	scripts := rapid.SliceOfN(step, 1, longest)
	rapid.Check(t, func(rt *rapid.T) {
		how, script := how.Draw(rt, "how"), scripts.Draw(rt, "script")
		var err error
		synctest.Test(t, func(t *testing.T) { err = play(t, how, script) })
		if err != nil {
			rt.Fatalf("%+v %v: %v", how, script, err)
		}
	})
}

// A stepKind is a kind of step of a machine, and how often it comes.
type stepKind struct {
	name   string
	weight int
}

// A move is a step of a kind, with an argument.
type move struct {
	kind, arg int
	name      string
	atOnce    bool
}

func (m move) hasty() bool { return m.atOnce }

func (m move) String() string {
	at := ""
	if m.atOnce {
		at = " at once"
	}
	return fmt.Sprintf("%s(%d)%s", m.name, m.arg, at)
}

// moves draws steps of kinds, which are their indexes.
func moves(kinds []stepKind) *rapid.Generator[move] {
	return rapid.Custom(func(t *rapid.T) move {
		k := weighed(rapid.Byte().Draw(t, "kind"), kinds)
		return move{kind: k, name: kinds[k].name, arg: int(rapid.Byte().Draw(t, "arg")), atOnce: rapid.Bool().Draw(t, "hasty")}
	})
}

// weighed returns the index of the kind that b falls on. Random bytes are small more often than
// large, so they are spread first.
func weighed(b byte, kinds []stepKind) int {
	const odd = 151
	b *= odd
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	i := int(b) % sum
	for k := range kinds {
		if i -= kinds[k].weight; i < 0 {
			return k
		}
	}
	return 0
}

// A call is one that may wait.
type call struct {
	cancel  context.CancelFunc
	stopped bool // the script has canceled it
	over    atomic.Bool
	err     error
	n       int64
}

// running reports whether c has begun and not returned.
func (c *call) running() bool { return c != nil && !c.over.Load() }

// interrupt cancels c, if it has begun.
func (c *call) interrupt() {
	if c != nil {
		c.stopped = true
		c.cancel()
	}
}

// begin runs f, unless the call in that place still runs.
func begin(place **call, f func(ctx context.Context, c *call)) {
	if (*place).running() {
		return
	}
	c := &call{}
	*place = c
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(context.Background())
	go func() {
		defer c.cancel()
		f(ctx, c)
		c.over.Store(true)
	}()
}

// letGo ends the calls that have begun.
func letGo(calls ...*call) {
	for _, c := range calls {
		if c != nil {
			c.cancel()
		}
	}
}

// A tape keeps what a receiver has returned.
type tape struct {
	mu       sync.Mutex // guards the fields below while a step is hasty; at rest nobody else is there
	got      []int64
	consumed int64
	last     error // what Recv returned at the end
}

// receive calls Recv and keeps what it returns.
func (t *tape) receive(place **call, in inlet, explicit bool) {
	begin(place, func(ctx context.Context, c *call) {
		c.n, c.err = in.recv(ctx)
		t.note(c.n, c.err, explicit)
	})
}

// note keeps what Recv has returned.
func (t *tape) note(n int64, err error, explicit bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.got = append(t.got, n)
		if !explicit {
			t.consumed++
		}
	case !errors.Is(err, context.Canceled):
		t.last = err
	}
}

// unconsumed returns how many elements were received and not consumed.
func (t *tape) unconsumed() int { return len(t.got) - int(t.consumed) }

// consume consumes n elements.
func (t *tape) consume(in inlet, n int) error {
	t.consumed += int64(n)
	return in.Consume(n)
}

// exhaust receives and consumes until the end of the stream or of ctx.
func (t *tape) exhaust(ctx context.Context, in inlet, explicit, canceled bool) error {
	for t.last == nil {
		if n := t.unconsumed(); explicit && n > 0 && !canceled {
			if err := t.consume(in, n); err != nil {
				return err
			}
		}
		n, err := in.recv(ctx)
		t.note(n, err, explicit)
	}
	return nil
}

// unless calls f, which writes to a transport. It does not wait for one that is stuck.
func unless(stuck bool, f func() error) error {
	if stuck {
		go f() // it says the same as without a stuck transport
		return nil
	}
	return f()
}

// endings are the ways in which a script ends a sender, and what the receiver is told.
var endings = [...]struct {
	end error
	by  func(outlet) error
}{
	{io.EOF, outlet.Close},
	{streamcredit.ErrGoingAway, outlet.CloseGoingAway},
	{errScript, func(out outlet) error { return out.CloseWithError(errScript) }},
}

// breakOff ends the call in the middle: its context, its handler, or its client. It reports whether
// it was the client.
func (e *ends) breakOff(arg int) (client bool) {
	switch arg % 4 {
	case 0:
		e.cancel()
	case 1, 2:
		select {
		case e.leave <- [...]error{1: nil, 2: errScript}[arg%4]:
		default:
		}
	default:
		switch c := e.client; {
		case c.close != nil:
			_ = c.close()
		case c.in != nil:
			_ = c.in.Close()
		default:
			e.cancel()
		}
		return true
	}
	return false
}

// A nap is how long a script has slept. All of it is less than FIRST_REQUEST_TIMEOUT.
type nap time.Duration

func (n *nap) sleep(d time.Duration) {
	if total := *n + nap(d); total < nap(20*time.Second) {
		*n = total
		time.Sleep(d)
	}
}

// wantNothingTaken returns an error if something of a budget is taken. There may be none.
func wantNothingTaken(b *streamcredit.Budget) error {
	if b == nil {
		return nil
	}
	if got := b.Stats(); got != (streamcredit.BudgetStats{}) {
		return fmt.Errorf("budget at the end: got %+v, want nothing taken", got)
	}
	return nil
}
