package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/streamcredit"
)

// A lineSetting is the shape of a lineMachine.
type lineSetting struct {
	Links  []byte // the kind and the options of each stream
	Sink   byte   // the pace of the last receiver
	Stage  byte   // the functions of the stages
	Budget bool
}

const (
	lineSend = iota
	lineRecv
	lineRequest
	lineConsume
	lineDrain
	lineInterrupt
	lineShut
	lineOpen
	lineHold
	lineSleep
	lineEnd
	lineCancel
	lineStop
	lineFail
	lineBreak
)

var lineKinds = []stepKind{
	lineSend: {"send", 50}, lineRecv: {"recv", 40}, lineRequest: {"request", 50}, lineConsume: {"consume", 16},
	lineDrain: {"drain", 8}, lineInterrupt: {"interrupt", 14}, lineShut: {"shut", 16}, lineOpen: {"open", 18},
	lineHold: {"hold", 8}, lineSleep: {"sleep", 8}, lineEnd: {"end", 6}, lineCancel: {"cancel", 4}, lineStop: {"stop", 4},
	lineFail: {"fail", 4}, lineBreak: {"break", 4},
}

// A link is a stream between two stages.
type link struct {
	*ends

	valve *valve
	out   outlet
	in    inlet
}

// A lineMachine plays a script on a source, one or two pipes in a row and a sink.
type lineMachine struct {
	lineSetting
	pace // of the sink
	tape

	budget *streamcredit.Budget
	links  []*link
	pipes  []*call
	source outlet
	sink   inlet

	send, recv, drained *call
	slept               nap
	asked               int64 // saturates
	end                 error // how the source has ended
	canceled            bool  // the sink wants no more
	cut                 bool  // something else has ended, or may end

	// The lock of the tape guards these, too.
	hold    chan struct{}
	fail    bool
	next    int64
	sent    []int64 // in order, without those that a stage skips
	skipped int64   // elements that a stage has skipped
}

func newLineMachine(t testing.TB, how lineSetting) *lineMachine {
	m := &lineMachine{lineSetting: how, pace: paceOf(how.Sink, true)}
	if how.Budget {
		m.budget = newBudget(t, streamcredit.BudgetConfig{Messages: 100})
	}
	for i, b := range how.Links {
		l := &link{valve: &valve{}}
		p := pace{manual: true, low: -1}
		if i == len(how.Links)-1 {
			p = m.pace
		} else if b&2 != 0 {
			p.bytes = 24
		}
		sender, receiver := opened(streamcredit.WithFirstRequestTimeout(0)), p.options()
		if b&4 != 0 {
			sender = append(sender, streamcredit.WithMaxPeerCredit(1+int64(b>>4&3)))
		}
		if how.Budget {
			receiver = append(receiver, streamcredit.WithBudget(m.budget))
		}
		if b&1 == 0 {
			l.ends = connect(t, framesDown, receiver, sender, l.valve.options()...)
		} else {
			l.ends = connect(t, framesUp, sender, receiver, l.valve.options()...)
		}
		l.out, l.in = l.down()
		m.links = append(m.links, l)
	}
	m.source, m.sink = m.links[0].out, m.links[len(m.links)-1].in
	m.pipes = make([]*call, len(m.links)-1)
	for i := range m.pipes {
		from, to := m.links[i].in.(inOf[[]byte]).Receiver, m.links[i+1].out.(outOf[[]byte]).Sender
		begin(&m.pipes[i], func(ctx context.Context, c *call) {
			c.err = streamcredit.Pipe(ctx, from, to, func(ctx context.Context, e []byte) ([]byte, error) { return m.stage(ctx, i, e) })
		})
	}
	return m
}

var errStage = status.Error(codes.DataLoss, "a stage has failed")

// skips reports whether stage i skips n.
func (m *lineMachine) skips(i int, n int64) bool { return m.Stage&1 != 0 && n%7 == int64(i) }

// stage is the function of the i-th pipe.
func (m *lineMachine) stage(ctx context.Context, i int, e []byte) ([]byte, error) {
	n := fromBytes(e)
	m.mu.Lock()
	hold, fail := m.hold, m.fail && i == int(m.Stage>>2)%len(m.pipes)
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	switch {
	case fail:
		return nil, errStage
	case m.skips(i, n):
		m.mu.Lock()
		defer m.mu.Unlock()
		m.skipped++
		return nil, streamcredit.ErrSkip
	case m.Stage&2 != 0 && n%3 == 0:
		time.Sleep(time.Millisecond)
	}
	return e, nil
}

// playLine plays a script and returns what went wrong first. It runs in a bubble.
func playLine(t testing.TB, how lineSetting, script []move) error {
	m := newLineMachine(t, how)
	defer m.release()
	return playScript(m, script)
}

func (m *lineMachine) step(o move) error {
	arg := o.arg
	l := m.links[arg%len(m.links)]
	switch arg /= len(m.links); o.kind {
	case lineSend:
		m.sendNext()
	case lineRecv:
		m.receive(&m.recv, m.sink, m.explicit)
	case lineRequest:
		if n := int64(1 + arg%8); m.manual {
			if arg > 80 {
				n = math.MaxInt64
			}
			m.asked += min(n, math.MaxInt64-m.asked)
			return m.receiver(func() error { return m.sink.Request(n) })
		}
	case lineConsume:
		synctest.Wait()
		if n := m.unconsumed(); m.explicit && n > 0 {
			n = 1 + arg%n
			m.consumed += int64(n)
			return m.receiver(func() error { return m.sink.Consume(n) })
		}
	case lineDrain:
		if m.manual {
			begin(&m.drained, func(ctx context.Context, c *call) { c.n, c.err = m.sink.Drain(ctx) })
		}
	case lineInterrupt:
		[...]*call{m.send, m.recv, m.drained}[arg%3].interrupt()
	case lineShut:
		l.valve.shut(arg % 2)
	case lineOpen:
		l.valve.open(arg % 2)
		m.setHold(false)
	case lineHold:
		m.setHold(true)
	case lineSleep:
		m.slept.sleep(time.Duration(arg) * 10 * time.Millisecond)
	case lineEnd:
		m.endSource(arg)
	case lineCancel:
		m.canceled = true
		return m.receiver(func() error { m.sink.Cancel("the script says so"); return nil })
	case lineStop:
		m.cut = true
		m.pipes[arg%len(m.pipes)].cancel()
	case lineFail:
		m.cut = true
		m.mu.Lock()
		m.fail = true
		m.mu.Unlock()
	default:
		m.cut = true
		if arg%2 == 0 {
			l.cancel()
		} else {
			select {
			case l.leave <- errScript:
			default:
			}
		}
	}
	return nil
}

func (m *lineMachine) sendNext() {
	begin(&m.send, func(ctx context.Context, c *call) {
		m.mu.Lock()
		n := m.next
		m.mu.Unlock()
		if c.err = m.source.send(ctx, n); c.err != nil {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.next++
		for i := range m.pipes {
			if m.skips(i, n) {
				return
			}
		}
		m.sent = append(m.sent, n)
	})
}

// receiver calls f, a method of the sink that may write. It does not wait for a stuck transport.
func (m *lineMachine) receiver(f func() error) error {
	return unless(m.links[len(m.links)-1].valve.isShutAnywhere(), f)
}

func (m *lineMachine) setHold(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case on && m.hold == nil:
		m.hold = make(chan struct{})
	case !on && m.hold != nil:
		close(m.hold)
		m.hold = nil
	}
}

func (m *lineMachine) endSource(arg int) {
	if m.end != nil {
		return
	}
	how := endings[arg%len(endings)]
	m.end = how.end
	go how.by(m.source) // waits for the transport
}

// stuck reports whether a transport or a stage waits for the script.
func (m *lineMachine) stuck() bool {
	for _, l := range m.links {
		if l.valve.isShutAnywhere() {
			return true
		}
	}
	return m.hold != nil
}

func (m *lineMachine) check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkOrder(); err != nil {
		return err
	}
	if m.stuck() {
		return nil
	}
	m.mu.Unlock()
	time.Sleep(10 * time.Millisecond) // for the stages that sleep, and for the budget
	synctest.Wait()
	m.mu.Lock()
	if err := m.checkWaits(); err != nil {
		return err
	}
	if m.cut || m.canceled || m.end != nil {
		return nil
	}
	return m.checkDemand()
}

// checkOrder: the sink gets the elements in order, and none twice.
func (m *lineMachine) checkOrder() error {
	if len(m.got) > len(m.sent) || !slices.Equal(m.got, m.sent[:len(m.got)]) {
		return fmt.Errorf("received: got %v, want the first of %v", m.got, m.sent)
	}
	return nil
}

// checkWaits: a call that waits has a reason to.
func (m *lineMachine) checkWaits() error {
	over := m.canceled || m.end != nil
	if m.send.running() && (m.source.Credit() > 0 || m.send.stopped || over) {
		return fmt.Errorf("a Send waits with a credit of %d, want it to return", m.source.Credit())
	}
	if m.recv.running() && (m.recv.stopped || m.sink.Stats().Buffered > 0 || m.canceled) {
		return fmt.Errorf("a Recv waits with %+v, want it to return", m.sink.Stats())
	}
	if m.drained.running() && !m.cut {
		return fmt.Errorf("a Drain waits with %+v, want it to return", m.sink.Stats())
	}
	for i, p := range m.pipes {
		if p.running() && m.canceled {
			return fmt.Errorf("pipe %d waits although the sink has canceled, want it to return", i)
		}
		if !p.running() && !m.canceled && !m.cut && m.end == nil {
			return fmt.Errorf("pipe %d: got %w, want it to go on", i, p.err)
		}
	}
	return nil
}

// checkDemand: demand and elements travel as far as they can, and the source is asked for no more
// than the sink wants.
func (m *lineMachine) checkDemand() error {
	out := m.links[len(m.links)-1].out
	s := m.source.Stats()
	flight := len(m.sent) - int(m.sink.Stats().Received)
	if flight > 0 && out.Credit() > 0 {
		return fmt.Errorf("elements on the way: got %d while the last stage has a credit of %d", flight, out.Credit())
	}
	if flight == 0 && out.Credit() > 0 && m.source.Credit() == 0 {
		return fmt.Errorf("credit: got none at the source and %d at the last stage, with %+v", out.Credit(), s)
	}
	if m.manual && m.asked < math.MaxInt64/2 && int64(s.Sent)+s.Credit > m.asked+m.skipped {
		return fmt.Errorf("asked of the source: got %+v, want at most %d and %d that were skipped", s, m.asked, m.skipped)
	}
	return nil
}

// settle ends what has not ended, takes all that there is, and looks for what is lost.
func (m *lineMachine) settle() error {
	for _, l := range m.links {
		l.valve.openBoth()
	}
	m.setHold(false)
	letGo(m.recv)
	synctest.Wait()
	m.endSource(0)
	if err := m.exhaust(); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	synctest.Wait()
	for i, p := range m.pipes {
		if p.running() {
			return fmt.Errorf("pipe %d waits after the end, want it to return", i)
		}
	}
	if m.send.running() {
		return fmt.Errorf("a Send waits after the end with %+v, want it to return", m.source.Stats())
	}
	for _, l := range m.links {
		l.end()
		if l.server.out != nil {
			_ = l.in.Close() // a client's receiver must be closed
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if m.drained.running() {
		return errors.New("a Drain waits after the end, want it to return")
	}
	return wantNothingTaken(m.budget)
}

// exhaust takes all elements, and looks at the end.
func (m *lineMachine) exhaust() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if m.manual {
		_ = m.sink.Request(math.MaxInt64)
	}
	if err := m.tape.exhaust(ctx, m.sink, m.explicit, m.canceled); err != nil {
		return err
	}
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkOrder(); err != nil {
		return err
	}
	proper := errors.Is(m.last, io.EOF) || errors.Is(m.last, streamcredit.ErrGoingAway)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("Recv waits with %+v, and %+v at the source", m.sink.Stats(), m.source.Stats())
	case m.canceled:
		return nil
	case m.cut && !proper:
		return nil
	case len(m.got) != len(m.sent):
		return fmt.Errorf("received before the end %w: got %v, want %v", m.last, m.got, m.sent)
	case !sameEnd(m.last, m.end):
		return fmt.Errorf("the end: got %w, want %w", m.last, m.end)
	case m.cut:
		return nil
	}
	for i, p := range m.pipes {
		if p.running() || !sameEnd(p.err, m.end) && (p.err != nil || m.end == errScript) {
			return fmt.Errorf("pipe %d: returned %t with %w, want the end %w", i, !p.running(), p.err, m.end)
		}
	}
	return nil
}

// release ends everything that a failed script has left.
func (m *lineMachine) release() {
	m.setHold(false)
	for _, l := range m.links {
		l.valve.openBoth()
	}
	letGo(append(slices.Clone(m.pipes), m.send, m.recv, m.drained)...)
	for _, l := range m.links {
		l.end()
	}
	synctest.Wait()
}

// Elements, demand, stuck transports and all ends in any order: pipes in a row lose nothing before
// a proper end, ask for no more than the sink wants, and no call waits for ever.
func TestAPipeIsItsModel(t *testing.T) {
	how := rapid.Custom(func(t *rapid.T) lineSetting {
		return lineSetting{
			Links: rapid.SliceOfN(rapid.Byte(), 2, 3).Draw(t, "links"), Sink: rapid.Byte().Draw(t, "sink"),
			Stage: rapid.Byte().Draw(t, "stage"), Budget: rapid.Bool().Draw(t, "budget"),
		}
	})
	checkScripts(t, how, moves(lineKinds), 60, playLine)
}
