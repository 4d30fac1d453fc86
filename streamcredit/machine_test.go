package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/streamcredit"
)

// A machine plays a script on both ends of a stream, and compares what it sees with what
// must hold: what was asked for, sent and received, and how it ended.
type machine struct {
	slept nap
	ends  *ends
	kind  kind
	dirs  []*direction

	broken bool // the call has been ended, or a step did that may end it
}

// An op is one step: a kind, and its argument. Half of the kinds do not wait until all is
// at rest, so that the next one comes in between.
type op struct{ Kind, Arg byte }

const (
	opSend = iota
	opTry
	opRecv
	opAll
	opRequest
	opDrain
	opConsume
	opInterrupt
	opSleep
	opEnd
	opCancel
	opBreak
)

func (o op) String() string {
	at := ""
	if o.hasty() {
		at = " at once"
	}
	return fmt.Sprintf("%s(%d)%s", [...]string{
		"send", "try", "recv", "all", "request", "drain", "done", "interrupt", "sleep", "end", "cancel", "break",
	}[o.kind()], o.Arg, at)
}

func (o op) hasty() bool { return o.Kind >= 128 }

// kind: elements mostly, ends seldom.
func (o op) kind() int {
	weights := [...]int{opSend: 24, opTry: 10, opRecv: 26, opAll: 4, opRequest: 24, opDrain: 8, opConsume: 10, opInterrupt: 8, opSleep: 4, opEnd: 5, opCancel: 3, opBreak: 2}
	for k, i := 0, int(o.Kind%128); ; k++ {
		if i -= weights[k]; i < 0 {
			return k
		}
	}
}

// A setting is the shape of the stream and the demand of each direction.
type setting struct {
	Kind     byte
	Down, Up byte
}

// A pace is how a direction asks for elements.
type pace struct {
	window   int64 // 0: manual demand, or automatic
	low      int64 // -1: the default
	manual   bool
	explicit bool
	bytes    int64 // the byte window; for elements of 8 bytes
}

func paceOf(b byte, framed bool) pace {
	p := pace{low: -1, explicit: b&1 == 1}
	switch b >> 1 & 7 {
	case 0, 1, 2:
		p.manual = true
	case 3: // automatic
	case 4:
		p.window = 1
	case 5:
		p.window = 2
	case 6:
		p.window, p.low = 7, 2
	default:
		p.window = 64
	}
	if framed && b&16 != 0 {
		p.bytes = 24
	}
	return p
}

func (p pace) options() (opts []streamcredit.DuplexOption) {
	if p.manual {
		opts = append(opts, streamcredit.WithManualDemand())
	}
	if p.window > 0 {
		opts = append(opts, streamcredit.WithWindow(int(p.window)))
	}
	if p.low >= 0 {
		opts = append(opts, streamcredit.WithLowWater(int(p.low)))
	}
	if p.explicit {
		opts = append(opts, streamcredit.WithExplicitConsume())
	}
	if p.bytes > 0 {
		opts = append(opts, streamcredit.WithByteWindow(p.bytes))
	}
	return opts
}

// slots is how many goroutines send in a direction, besides TrySend.
const slots = 3

// A direction is one of a stream's, and what is known of it.
type direction struct {
	pace
	tape

	name   string
	out    outlet
	in     inlet
	client bool // the sender is the client
	alone  bool // nothing goes the other way

	sends  [slots]*call
	recv   *call
	drain  *call
	finish *call

	// The lock of the tape guards these, too.
	next     [slots + 1]int64
	sent     [slots + 1][]int64 // by who sent it
	asked    int64              // saturates
	burned   int64
	blurred  bool  // a drain's answer was not waited for
	ended    error // how the sender has ended
	canceled bool
}

func (d *direction) over() bool { return d.ended != nil || d.canceled }

func (d *direction) count() (n int64) {
	for _, by := range d.sent {
		n += int64(len(by))
	}
	return n
}

func number(slot int, n int64) int64 { return int64(slot+1)<<32 | n }

// playSession plays a script and returns what went wrong first. It runs in a bubble.
func playSession(t testing.TB, how setting, script []op) error {
	k := kind(int(how.Kind) % numberOfKinds)
	down, up := paceOf(how.Down, k.framed()), paceOf(how.Up, k.framed())
	e := connect(t, k, down.options(), up.options())
	m := &machine{ends: e, kind: k}
	if e.server.out != nil {
		m.dirs = append(m.dirs, &direction{pace: down, name: "down", out: e.server.out, in: e.client.in, alone: !k.duplex()})
	}
	if e.client.out != nil {
		m.dirs = append(m.dirs, &direction{pace: up, name: "up", out: e.client.out, in: e.server.in, client: true, alone: !k.duplex()})
	}
	defer m.stop()
	return playScript(m, script)
}

func (m *machine) step(o op) error {
	d := m.dirs[int(o.Arg)%len(m.dirs)]
	arg := int(o.Arg) / len(m.dirs)
	switch o.kind() {
	case opSend:
		m.send(d, arg%slots)
	case opTry:
		return m.try(d)
	case opRecv:
		d.receive(&d.recv, d.in, d.explicit)
	case opAll:
		m.all(d, arg)
	case opRequest:
		return d.request(arg)
	case opDrain:
		return m.drain(d)
	case opConsume:
		return d.done(arg)
	case opInterrupt:
		places := []*call{d.sends[0], d.sends[1], d.sends[2], d.recv, d.drain, d.finish}
		places[arg%len(places)].interrupt()
	case opSleep:
		m.slept.sleep(time.Duration(arg) * time.Millisecond)
	case opEnd:
		m.end(d, arg)
	case opCancel:
		d.mark()
		if arg%2 == 0 || d.alone && !d.client { // Close of a client that only receives ends the call
			d.in.Cancel("the script says so")
		} else if err := d.in.Close(); err != nil {
			return fmt.Errorf("%s: Close: got %w, want no error", d.name, err)
		}
	case opBreak:
		m.breakCall(arg)
	}
	return nil
}

func (m *machine) send(d *direction, slot int) {
	begin(&d.sends[slot], func(ctx context.Context, c *call) {
		n := d.next[slot]
		d.next[slot]++
		if c.err = d.out.send(ctx, number(slot, n)); c.err == nil {
			d.sent[slot] = append(d.sent[slot], number(slot, n))
		}
	})
}

// try knows, when all is at rest, what TrySend must say.
func (m *machine) try(d *direction) error {
	synctest.Wait()
	credit, over := d.out.Credit(), d.over()
	want := credit > 0 && !d.full()
	n := number(slots, d.next[slots])
	d.next[slots]++
	ok, err := d.out.try(n)
	if ok {
		d.sent[slots] = append(d.sent[slots], n)
	}
	switch {
	case m.broken:
		return nil
	case over:
		if ok || err == nil {
			return fmt.Errorf("%s: TrySend at the end: got %t, %w; want an error", d.name, ok, err)
		}
	case ok != want || err != nil:
		return fmt.Errorf("%s: TrySend with a credit of %d: got %t, %w; want %t", d.name, credit, ok, err, want)
	}
	return nil
}

// full reports whether the byte window is.
func (d *direction) full() bool {
	return d.bytes > 0 && (d.count()-int64(d.out.Consumed()))*8 >= d.bytes
}

// mark notes that the receiver wants no more.
func (d *direction) mark() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.canceled = true
}

// all takes some elements in a loop, and leaves it, or takes all.
func (m *machine) all(d *direction, arg int) {
	left := arg % 16
	if left > 8 {
		left = math.MaxInt
	}
	begin(&d.recv, func(ctx context.Context, c *call) {
		d.in.all(ctx, func(n int64, err error) bool {
			c.n, c.err = n, err
			if left--; err == nil && left <= 0 {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.got = append(d.got, n) // it is not consumed
				d.canceled = true
				return false
			}
			d.note(n, err, d.explicit)
			return true
		})
	})
}

func (d *direction) request(arg int) error {
	n := int64(arg%16) - 1
	switch arg {
	case 100, 101, 102:
		n = math.MaxInt64
	case 103:
		n = math.MaxInt64 / 2
	case 104:
		n = math.MinInt64
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.in.Request(n)
	invalid := !d.manual || n < 1
	blocked := !invalid && !d.alone && n > math.MaxInt64-1-max(0, d.asked-d.burned)
	switch {
	case !d.alone && d.asked == math.MaxInt64 && d.burned > 0 && errors.Is(err, streamcredit.ErrInvalid):
		return nil // this account has saturated, and knows no more what is outstanding
	case invalid && !errors.Is(err, streamcredit.ErrInvalid):
		return fmt.Errorf("%s: Request(%d): got %w, want ErrInvalid", d.name, n, err)
	case blocked:
		if !errors.Is(err, streamcredit.ErrInvalid) {
			return fmt.Errorf("%s: Request(%d) where both send: got %w, want ErrInvalid", d.name, n, err)
		}
	case !invalid && err != nil:
		return fmt.Errorf("%s: Request(%d): got %w, want no error", d.name, n, err)
	case !invalid && n > math.MaxInt64-d.asked:
		d.asked = math.MaxInt64
	case !invalid:
		d.asked += n
	}
	return nil
}

func (m *machine) drain(d *direction) error {
	if !d.manual {
		if _, err := d.in.Drain(context.Background()); !errors.Is(err, streamcredit.ErrInvalid) {
			return fmt.Errorf("%s: Drain with a window: got %w, want ErrInvalid", d.name, err)
		}
		return nil
	}
	begin(&d.drain, func(ctx context.Context, c *call) {
		c.n, c.err = d.in.Drain(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.burned += c.n
		d.blurred = d.blurred || c.err != nil
	})
	return nil
}

func (d *direction) done(arg int) error {
	n := arg%4 + 1
	synctest.Wait()
	have := d.unconsumed()
	err := d.in.Consume(n)
	if !d.explicit || n > have {
		if !errors.Is(err, streamcredit.ErrInvalid) {
			return fmt.Errorf("%s: Consume(%d) of %d: got %w, want ErrInvalid", d.name, n, have, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: Consume(%d) of %d: got %w, want no error", d.name, n, have, err)
	}
	d.consumed += int64(n)
	return nil
}

var errScript = status.Error(codes.Aborted, "the script says so")

// end has the sender end, in one way or another.
func (m *machine) end(d *direction, arg int) {
	how, finish := arg%4, arg%4 == len(endings)
	if finish {
		how = 0 // and waits for the receiver
	}
	first := d.ended == nil
	if first {
		d.ended = endings[how].end
	}
	var err error
	if !finish {
		err = endings[how].by(d.out)
	} else {
		begin(&d.finish, func(ctx context.Context, c *call) { c.err = d.out.Finish(ctx) })
		synctest.Wait() // so that no other end overtakes it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if first && err != nil && !d.canceled && !m.broken {
		d.last = fmt.Errorf("end of the sender: got %w, want no error", err)
	}
}

// breakCall ends the call in the middle.
func (m *machine) breakCall(arg int) {
	m.broken = true
	if !m.ends.breakOff(arg) {
		return
	}
	for _, d := range m.dirs {
		if !d.client {
			d.mark()
		}
	}
}

// check compares what is seen from outside with what must hold at rest.
func (m *machine) check() error {
	for _, d := range m.dirs {
		if err := d.checkOrder(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if err := d.checkEnd(m.broken); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if m.broken {
			continue
		}
		if err := d.checkCounts(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if err := d.checkWaits(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// checkOrder: each goroutine's elements in their order, none lost before another one, none
// twice, none that was not sent.
func (d *direction) checkOrder() error {
	var seen [slots + 1]int
	for i, n := range d.got {
		slot := int(n>>32) - 1
		if slot < 0 || slot > slots || seen[slot] >= len(d.sent[slot]) || d.sent[slot][seen[slot]] != n {
			return fmt.Errorf("element %d: got %#x, want the next one of those that were sent: %x", i+1, n, d.sent)
		}
		seen[slot]++
	}
	return nil
}

// checkEnd: Recv ends in the one way in which the sender did.
func (d *direction) checkEnd(broken bool) error {
	switch {
	case d.last == nil || broken:
		return nil
	case d.canceled:
		if !errors.Is(d.last, streamcredit.ErrClosed) && (d.ended == nil || !sameEnd(d.last, d.ended)) {
			return fmt.Errorf("after Cancel: got %w, want ErrClosed", d.last)
		}
		return nil
	case d.ended == nil:
		return fmt.Errorf("before the end: got %w, want none", d.last)
	case !sameEnd(d.last, d.ended):
		return fmt.Errorf("the end: got %w, want %w", d.last, d.ended)
	case int64(len(d.got)) != d.count():
		return fmt.Errorf("elements before the end: got %d, want %d", len(d.got), d.count())
	}
	return nil
}

func sameEnd(got, want error) bool {
	return errors.Is(got, want) || want == errScript && status.Code(got) == status.Code(want) && status.Convert(got).Message() == status.Convert(want).Message()
}

// checkCounts compares the statistics of both ends with what was done.
func (d *direction) checkCounts() error {
	sent, out, in := d.count(), d.out.Stats(), d.in.Stats()
	credit := out.Credit
	if d.full() {
		credit = 0
	}
	if int64(out.Sent) != sent || credit != d.out.Credit() || out.Consumed != d.out.Consumed() {
		return fmt.Errorf("sender: got %+v, want %d sent", out, sent)
	}
	if d.canceled {
		if in.Buffered != 0 || in.Outstanding != 0 || out.Credit != 0 {
			return fmt.Errorf("after Cancel: got %+v and %+v, want nothing buffered nor outstanding", out, in)
		}
		return nil
	}
	if int64(in.Received) != sent || in.Buffered != int(sent)-len(d.got) || int64(in.Consumed) != d.consumed {
		return fmt.Errorf("receiver: got %+v, want %d received, %d seen, %d consumed", in, sent, len(d.got), d.consumed)
	}
	if int64(out.Consumed) > d.consumed {
		return fmt.Errorf("consumed, says the sender: got %d, want at most %d", out.Consumed, d.consumed)
	}
	if d.manual && sent+d.burned > d.asked {
		return fmt.Errorf("sent and burned: got %d and %d, want at most the %d that were asked for", sent, d.burned, d.asked)
	}
	if d.over() {
		if out.Credit != 0 || in.Outstanding != 0 {
			return fmt.Errorf("at the end: got %+v and %+v, want no credit", out, in)
		}
		return nil
	}
	if in.Outstanding != out.Credit {
		return fmt.Errorf("credit: got %d at the sender and %d at the receiver, want the same", out.Credit, in.Outstanding)
	}
	return d.checkDemand(sent, out.Credit)
}

// checkDemand: no demand is lost, and none is invented.
func (d *direction) checkDemand(sent, credit int64) error {
	if lag := (d.consumed - int64(d.out.Consumed())) * 8; d.bytes > 0 && lag >= (d.bytes+1)/2 {
		return fmt.Errorf("bytes consumed and not reported: got %d, want less than half of %d", lag, d.bytes)
	}
	if held := (sent - d.consumed) * 8; d.bytes > 0 && held >= d.bytes+8 {
		return fmt.Errorf("bytes sent and not consumed: got %d, want less than %d and one element", held, d.bytes)
	}
	switch held := sent + credit - d.consumed; {
	case d.manual && d.asked == math.MaxInt64:
		if credit != math.MaxInt64 && !d.blurred && d.burned == 0 {
			return fmt.Errorf("credit after unbounded demand: got %d, want it unbounded", credit)
		}
	case d.manual:
		if want := d.asked - d.burned - sent; credit != want && !d.blurred {
			return fmt.Errorf("credit: got %d, want %d, which were asked for, not sent and not burned", credit, want)
		}
	case d.window > 0 && held > d.window:
		return fmt.Errorf("asked for and not consumed: got %d, want at most %d", held, d.window)
	case d.window > 0:
		low := d.window / 2
		if d.low >= 0 {
			low = d.low
		}
		if held <= low {
			return fmt.Errorf("asked for and not consumed: got %d, want more than the low-water mark of %d", held, low)
		}
	case sent == d.consumed && credit == 0:
		return errors.New("credit of an automatic window with all consumed: got 0, want some")
	}
	return nil
}

// checkWaits: whoever still waits has reason to.
func (d *direction) checkWaits() error {
	var waiting int
	for _, c := range d.sends {
		if c == nil {
			continue
		}
		if !c.over.Load() {
			waiting++
		} else if c.err != nil && !d.over() && (!c.stopped || !errors.Is(c.err, context.Canceled)) {
			return fmt.Errorf("a Send: got %w, want no error", c.err)
		}
	}
	switch got := d.out.Stats().Waiting; {
	case waiting > 0 && d.over():
		return fmt.Errorf("Sends that wait at the end: got %d, want none", waiting)
	case waiting > 0 && d.out.Credit() > 0 && !d.full():
		return fmt.Errorf("Sends that wait with a credit of %d: got %d, want none", d.out.Credit(), waiting)
	case got != waiting:
		return fmt.Errorf("waiting, says the sender: got %d, want %d", got, waiting)
	}
	if c := d.recv; c != nil && !c.over.Load() && (d.over() || d.in.Stats().Buffered > 0) {
		return fmt.Errorf("a Recv waits, with %+v; want it to return", d.in.Stats())
	}
	if c := d.drain; c != nil && !c.over.Load() {
		return fmt.Errorf("a Drain waits, with %+v; want it to return", d.in.Stats())
	}
	// On a client that only sends, Finish waits for the handler.
	if c := d.finish; c != nil && !c.over.Load() && (!d.client || !d.alone) && (d.canceled || d.consumed == d.count()) {
		return fmt.Errorf("Finish waits, with %+v; want it to return", d.out.Stats())
	} else if c != nil && c.over.Load() && c.err != nil && !c.stopped && !d.canceled {
		return fmt.Errorf("Finish: got %w, want no error", c.err)
	} else if c != nil && c.over.Load() && c.err == nil && !d.canceled && d.consumed < d.count() {
		return fmt.Errorf("Finish has returned with %d consumed, want %d", d.consumed, d.count())
	}
	return nil
}

// settle ends what has not ended, takes all that there is, and looks for what is lost.
func (m *machine) settle() error {
	for _, d := range m.dirs {
		for _, c := range []*call{d.recv, d.drain} {
			if c != nil {
				c.cancel()
			}
		}
	}
	if m.broken {
		return nil
	}
	for _, d := range m.dirs {
		if d.ended == nil {
			d.ended = io.EOF
			if err := d.out.Close(); err != nil && !d.canceled {
				return fmt.Errorf("%s: Close: got %w, want no error", d.name, err)
			}
		}
		synctest.Wait()
		if err := d.exhaust(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	synctest.Wait()
	for _, d := range m.dirs {
		if got, want := int64(d.out.Consumed()), d.count(); !d.canceled && got != want {
			return fmt.Errorf("%s: consumed, says the sender at the end: got %d, want %d", d.name, got, want)
		}
	}
	if err := m.check(); err != nil {
		return err
	}
	m.ends.leave <- nil
	if c := m.ends.client; c.close != nil {
		if err := c.close(); err != nil {
			return fmt.Errorf("Close of the client: got %w, want no error", err)
		}
	}
	return nil
}

// exhaust takes all that was sent, and then sees one end, again and again.
func (d *direction) exhaust() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for ends := 0; ends < 2; {
		n, err := d.in.recv(ctx)
		if d.note(n, err, d.explicit); err == nil {
			continue
		}
		if err := d.checkEnd(false); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("Recv at the end: got %w, want the end", err)
		}
		ends++
	}
	if have := d.unconsumed(); d.explicit && have > 0 && !d.canceled {
		if err := d.consume(d.in, have); err != nil {
			return fmt.Errorf("Consume(%d): got %w, want no error", have, err)
		}
	}
	return nil
}

// stop lets everything go that a failed script has left.
func (m *machine) stop() {
	for _, d := range m.dirs {
		letGo(append(d.sends[:], d.recv, d.drain, d.finish)...)
	}
	m.ends.end()
	synctest.Wait()
}

func TestSessionIsItsModel(t *testing.T) {
	how := rapid.Custom(func(t *rapid.T) setting {
		return setting{Kind: rapid.Byte().Draw(t, "kind"), Down: rapid.Byte().Draw(t, "down"), Up: rapid.Byte().Draw(t, "up")}
	})
	step := rapid.Custom(func(t *rapid.T) op { return op{Kind: rapid.Byte().Draw(t, "kind"), Arg: rapid.Byte().Draw(t, "arg")} })
	checkScripts(t, how, step, 120, playSession)
}

// FuzzSession reads a script off the input, two bytes a step after three that say what
// kind of stream it is.
func FuzzSession(f *testing.F) {
	const longest = 400                                                                    // bytes
	f.Add([]byte{0, 0, 0, 64, 10, 0, 0, 0, 0, 34, 0, 34, 0, 125, 0})                       // request, send and receive
	f.Add([]byte{2, 8, 10, 0, 0, 0, 1, 34, 0, 34, 1, 118, 0, 118, 1})                      // both directions, windows of 1 and 2
	f.Add([]byte{3, 0, 0, 64, 20, 88, 0, 64, 20, 0, 0, 88, 0, 0, 0, 34, 0})                // drain twice
	f.Add([]byte{4, 31, 31, 0, 0, 0, 1, 0, 2, 0, 0, 34, 0, 34, 0, 96, 0, 96, 0})           // a byte window and explicit consumption
	f.Add([]byte{1, 6, 6, 24, 0, 24, 0, 60, 3, 106, 3, 118, 3, 0, 0})                      // leave a loop, interrupt, finish
	f.Add([]byte{2, 14, 14, 128, 0, 128, 1, 246, 0, 251, 1, 162, 0, 162, 1, 254, 3, 0, 0}) // ends that cross
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < 3 {
			return
		}
		how := setting{input[0], input[1], input[2]}
		input = input[3:]
		script := make([]op, min(len(input), longest)/2)
		for i := range script {
			script[i] = op{Kind: input[2*i], Arg: input[2*i+1]}
		}
		synctest.Test(t, func(t *testing.T) {
			if err := playSession(t, how, script); err != nil {
				t.Fatalf("%+v %v: %v", how, script, err)
			}
		})
	})
}
