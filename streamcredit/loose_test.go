package streamcredit_test

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A loose is a stream of Frames without a transport: the test is the peer. A read returns
// what is in come, a write is given to went.
type loose struct {
	ctx  context.Context
	come chan *creditpb.Frame
	went func(*creditpb.Frame) error // nil: it is forgotten
}

func newLoose(ctx context.Context, open *creditpb.Open) *loose {
	s := &loose{ctx: ctx, come: make(chan *creditpb.Frame, 8)}
	s.come <- alone(helloFrom(open))
	return s
}

func (s *loose) Context() context.Context { return s.ctx }

func (s *loose) Send(f *creditpb.Frame) error {
	if s.went == nil {
		return nil
	}
	return s.went(f)
}

func (s *loose) Recv() (*creditpb.Frame, error) {
	select {
	case f, ok := <-s.come:
		if !ok {
			return nil, io.EOF
		}
		return f, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func alone(c *creditpb.Control) *creditpb.Frame {
	return &creditpb.Frame{Body: &creditpb.Frame_Control{Control: c}}
}

func data(b []byte) *creditpb.Frame { return &creditpb.Frame{Body: &creditpb.Frame_Data{Data: b}} }

// receives begins a session of a server that receives.
func (s *loose) receives(t *testing.T, opts ...streamcredit.DuplexOption) *streamcredit.Receiver[[]byte] {
	t.Helper()
	both, _, err := streamcredit.ServeFrames(s, append(opts, streamcredit.WithReceiveOnly())...)
	if err != nil {
		t.Fatal(err)
	}
	return both.In
}

// A first Frame with nothing in it is from nobody who could be served.
func TestAnEmptyFirstFrame(t *testing.T) {
	for _, only := range []streamcredit.DuplexOption{streamcredit.WithSendOnly(), streamcredit.WithReceiveOnly()} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &loose{ctx: ctx, come: make(chan *creditpb.Frame, 1)}
		s.come <- &creditpb.Frame{}
		_, _, err := streamcredit.ServeFrames(s, streamcredit.WithPlainClients(), only)
		if v, ok := errors.AsType[*streamcredit.ProtocolError](err); !ok || v.Reason != streamcredit.UnexpectedFrame {
			t.Errorf("ServeFrames: got %v, want UNEXPECTED_FRAME", err)
		}
		cancel()
	}
}

// Control that a peer elicits which does not read adds up, and is written when it reads.
func TestControlAddsUpWhereNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newLoose(ctx, &creditpb.Open{WillSend: true})
		stuck := make(chan struct{})
		var messages, demand atomic.Int64
		s.went = func(f *creditpb.Frame) error {
			if f.GetControl().GetOpen() != nil {
				demand.Add(f.GetControl().GetOpen().GetInitial().GetN())
				return nil
			}
			<-stuck
			messages.Add(1)
			demand.Add(f.GetControl().GetRequest().GetN())
			return nil
		}
		in := s.receives(t, streamcredit.WithWindow(1))
		const count = 5000
		for range count {
			s.come <- data(nil) // it knows when there must be credit
			if _, err := in.Recv(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		close(stuck)
		synctest.Wait()
		if n := messages.Load(); n > 100 {
			t.Errorf("messages that waited for a peer that does not read: got %d for %d elements, want at most 100", n, count)
		}
		if n := demand.Load(); n != count+1 {
			t.Errorf("demand: got %d after %d elements with a window of 1, want %d", n, count, count+1)
		}
	})
}

// Drain returns the answer that has come, whatever has come since.
func TestDrainAnsweredAndEnded(t *testing.T) {
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		s := newLoose(ctx, &creditpb.Open{WillSend: true})
		in := s.receives(t, streamcredit.WithManualDemand())
		if err := in.Request(5); err != nil {
			t.Fatal(err)
		}
		// It is held up between asking and looking, as on a busy machine.
		n, err := in.Drain(&heldUp{Context: ctx, wait: func() {
			s.come <- alone(&creditpb.Control{Kind: &creditpb.Control_Drained{Drained: &creditpb.Drained{Burned: 5}}})
			s.come <- alone(&creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{}}})
			_, _ = in.Recv(ctx) // the end is in
		}})
		cancel()
		if n != 5 || err != nil {
			t.Fatalf("Drain: got %d, %v, want 5, as the sender has answered", n, err)
		}
	}
}

// A heldUp context calls wait when its Done is asked for a second time.
type heldUp struct {
	context.Context
	asked atomic.Int64
	wait  func()
}

func (c *heldUp) Done() <-chan struct{} {
	if c.asked.Add(1) == 2 {
		c.wait()
	}
	return c.Context.Done()
}

// Elements without bytes weigh nothing, and bound no window.
func TestAutoWindowOfEmptyElements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newLoose(ctx, &creditpb.Open{WillSend: true})
		in := s.receives(t, streamcredit.WithAutoWindow(streamcredit.AutoWindow{Min: 1}))
		last := in.Stats().Window
		recv := func() {
			t.Helper()
			if _, err := in.Recv(ctx); err != nil {
				t.Fatal(err)
			}
			now := in.Stats().Window
			if now < last-last/4-1 {
				t.Fatalf("window: got %d after %d, want a quarter less at most", now, last)
			}
			last = now
		}
		s.come <- data([]byte{1})
		recv()
		for range 10_000 { // one by one
			s.come <- data(nil)
			recv()
		}
		for range 10_000 { // and to a consumer that is slower than its sender
			for n := in.Stats().Outstanding; n > 0; n-- {
				s.come <- data(nil)
			}
			synctest.Wait()
			recv()
		}
	})
}

// The sums of a budget do not overflow.
func TestAVastBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b := newBudget(t, streamcredit.BudgetConfig{Bytes: math.MaxInt64, ElementBytes: 1 << 10})
		s := newLoose(ctx, &creditpb.Open{WillSend: true})
		in := s.receives(t, streamcredit.WithManualDemand(), streamcredit.WithBudget(b))
		if err := in.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		before := b.Stats().Bytes
		s.come <- data(make([]byte, 1<<20))
		synctest.Wait()
		if got := b.Stats().Bytes; got < before {
			t.Errorf("bytes after an element a thousand times as heavy as was thought: got %d, want more than the %d before it", got, before)
		}
		in.Cancel("")
		if got := b.Stats().Bytes; got != 0 {
			t.Errorf("bytes after the end: got %d, want 0", got)
		}
	})
}

// A sender that does not answer a drain does not fill the memory.
func TestADrainWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newLoose(ctx, &creditpb.Open{WillSend: true})
		in := s.receives(t, streamcredit.WithManualDemand())
		if err := in.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		drained := later(func() { _, _ = in.Drain(ctx) })
		payload, taken := make([]byte, 1<<20), 0
		for ; taken < 1000; taken++ {
			select {
			case s.come <- data(payload):
				continue
			case <-time.After(time.Second):
			}
			break
		}
		if taken > 64+1+cap(s.come) {
			t.Errorf("held for a sender that does not answer a drain: got %d MiB, want at most 64", taken)
		}
		if drained.Load() {
			t.Error("Drain without an answer: it has returned, want it to wait")
		}
	})
}

// An end that could not be written was not written.
func TestCloseOfFramesThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		broken := errors.New("broken")
		s := newLoose(ctx, &creditpb.Open{WillReceive: true, Initial: &creditpb.Request{N: 1}})
		s.went = func(f *creditpb.Frame) error {
			if f.GetControl().GetComplete() == nil {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
			return broken
		}
		both, _, err := streamcredit.ServeFrames(s, streamcredit.WithSendOnly())
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Out.Close(); !errors.Is(err, broken) {
			t.Errorf("Close: got %v, want the error of writing Complete", err)
		}
	})
}

// Of what a budget takes back from one, others who want it get as much as that one.
func TestReclaimedCreditIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 64})
		var mu sync.Mutex
		asked := map[*loose]int64{} // and not burned
		serve := func(opts ...streamcredit.DuplexOption) (*loose, *streamcredit.Receiver[[]byte]) {
			s := newLoose(ctx, &creditpb.Open{WillSend: true})
			s.went = func(f *creditpb.Frame) error {
				mu.Lock()
				defer mu.Unlock()
				r := f.GetControl().GetRequest()
				asked[s] += f.GetControl().GetOpen().GetInitial().GetN() + r.GetN()
				if r.GetDrain() {
					s.come <- alone(&creditpb.Control{Kind: &creditpb.Control_Drained{Drained: &creditpb.Drained{
						Burned: asked[s],
					}}})
					asked[s] = 0
				}
				return nil
			}
			in := s.receives(t, append(opts, streamcredit.WithBudget(b))...)
			return s, in
		}
		idle, _ := serve(streamcredit.WithWindow(64))
		busy, in := serve(streamcredit.WithManualDemand())
		if err := in.Request(1000); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for end := time.Now().Add(9500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			send := asked[busy] > 0
			if send {
				asked[busy]--
			}
			mu.Unlock()
			if send {
				busy.come <- data(nil)
				if _, err := in.Recv(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if asked[busy] < asked[idle]*3/4 || asked[idle] == 0 {
			t.Errorf("the busy stream has %d and the idle one %d, want about as much", asked[busy], asked[idle])
		}
	})
}
