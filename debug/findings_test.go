package debug_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/pressure"
)

// A shut is a Pressure that refuses every call.
type shut struct{}

func (shut) Pressure() (level uint8, signal string) { return 3, "memory" }

// Responses that have not left are in flight beyond an adaptive limit, and leave its permits
// free. A gate that refuses calls for another reason then does not look stuck. One whose
// permits are all in use does.
func TestNothingMoves(t *testing.T) {
	for name, stuck := range map[string]bool{"responses that have not left": false, "handlers that hang": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				two := must(limit.NewAdaptive(limit.AdaptiveConfig{Initial: 2, Max: 2}))(t)
				g := must(admit.New(admit.WithLimit(two), admit.WithoutQueue()))(t)
				h := must(debug.NewHandler(g))(t)
				look(t, h) // from now on running calls are listed
				for range 2 {
					p := must(g.Acquire(t.Context(), admit.Call{}))(t)
					defer p.Release(admit.Ignored)
					if !stuck {
						p.Finish(admit.Success)
					}
				}
				time.Sleep(time.Second)
				look(t, h) // sees what has ended
				time.Sleep(10 * time.Second)
				if err := g.Update(admit.WithPressure(shut{})); err != nil {
					t.Fatal(err)
				}
				if _, err := g.Acquire(t.Context(), admit.Call{}); err == nil {
					t.Fatal("got a permit under pressure, want a refusal")
				}
				found, advised := false, false
				for _, f := range look(t, h).GetFindings() {
					found = found || strings.Contains(f.GetText(), "Nothing moves")
					advised = advised || strings.Contains(f.GetText(), "Find out what holds the memory")
				}
				if advised == stuck {
					t.Errorf("advice about the refusals: got %t, want it only where nothing is stuck: %v", advised, look(t, h).GetFindings())
				}
				if found != stuck {
					t.Errorf("got the finding %t, want %t: %v", found, stuck, look(t, h).GetFindings())
				}
			})
		})
	}
}

// finding returns the text of the only finding of a source, or "".
func finding(t *testing.T, h *debug.Handler, source string) (text string) {
	t.Helper()
	for _, f := range look(t, h).GetFindings() {
		if f.GetSource() == source {
			if text != "" {
				t.Errorf("findings of %s: got %q and %q, want one", source, text, f.GetText())
			}
			text = f.GetText()
		}
	}
	return text
}

func wantSays(t *testing.T, what, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%s: got the finding %q, want it to say %q", what, text, want)
		}
	}
}

// A circuit that opens and closes is a finding between two openings, too, and no longer than a
// minute after the last one.
func TestACircuitThatFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		circuits := must(breaker.New(breaker.Config{Name: "to-stock", MinCalls: 10, OpenFor: 500 * ms}))(t)
		var down atomic.Bool
		s := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			if down.Load() {
				return nil, status.Error(codes.Unavailable, "down")
			}
			return &demopb.WorkResponse{}, nil
		}}
		p := grpctest.Start(t, s.register, grpctest.DialOptions(must(interceptors.Client(interceptors.ClientConfig{Breaker: circuits}))(t)...))
		client := demopb.NewDemoServiceClient(p.Conn)
		h := must(debug.NewHandler(circuits))(t)
		state := func() breaker.CircuitStats { return circuits.Stats()[0] }
		for n := range uint64(flaps) {
			down.Store(true)
			for range 1000 {
				if _, _ = client.Work(t.Context(), &demopb.WorkRequest{}); state().Opened > n {
					break
				}
				time.Sleep(10 * ms)
			}
			down.Store(false)
			for range 1000 {
				if state().State == breaker.Closed {
					break
				}
				time.Sleep(10 * ms)
				_, _ = client.Work(t.Context(), &demopb.WorkRequest{})
			}
		}
		if got := state(); got.State != breaker.Closed || got.Opened != flaps {
			t.Fatalf("the circuit: got %s after %d openings, want closed after %d", got.State, got.Opened, flaps)
		}
		wantSays(t, "a closed circuit that was open", finding(t, h, "breaker to-stock"),
			"Work at", "is closed", "calls pass again now", "opened 3 times")
		time.Sleep(time.Minute)
		if got := finding(t, h, "breaker to-stock"); got != "" {
			t.Errorf("a minute after the last opening: got the finding %q, want none", got)
		}
	})
}

const flaps = 3

// The finding about a gate that is stuck names the calls that are known, and tells a gate that
// waits for itself from one that waits for another.
func TestWhatAStuckGateWaitsFor(t *testing.T) {
	for name, c := range map[string]struct {
		late   bool // the page is opened when the calls run already
		behind bool // the gate behind is full, too
		want   []string
	}{
		"itself": {want: []string{"Running: 1 × /a/Slow (up to 10 s). Waiting: 2 × /a/Other (up to 10 s), 1 × /a/Slow (up to 10 s).", "gates (behind) have permits to spare"}},
		"itself, with a late viewer": {late: true, want: []string{
			"The running calls began while nobody looked at this page, so their methods are not known. A goroutine dump",
			"Waiting: 2 × /a/Other (up to 16 s), 1 × /a/Slow (up to 16 s).",
		}},
		"another gate": {behind: true, want: []string{"Also full: behind."}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := must(limit.NewFixed(1))(t)
				front := must(admit.New(admit.WithName("front"), admit.WithLimit(one), admit.WithQueue(admit.QueueConfig{Policy: admit.Block})))(t)
				behind := must(admit.New(admit.WithName("behind"), admit.WithLimit(must(limit.NewFixed(1))(t))))(t)
				h := must(debug.NewHandler(front, behind))(t)
				if !c.late {
					look(t, h)
				}
				must(front.Acquire(t.Context(), admit.Call{Method: "/a/Slow"}))(t)
				if c.behind {
					must(behind.Acquire(t.Context(), admit.Call{}))(t)
				}
				ctx, cancel := context.WithCancel(t.Context())
				for _, method := range []string{"/a/Slow", "/a/Other", "/a/Other"} {
					go func() { _, _ = front.Acquire(ctx, admit.Call{Method: method}) }()
				}
				time.Sleep(10 * time.Second)
				if c.late {
					look(t, h)
					time.Sleep(6 * time.Second)
				}
				wantSays(t, name, finding(t, h, "gate front"), append(c.want, "Nothing moves.")...)
				cancel()
				synctest.Wait()
			})
		})
	}
}

// Calls that began while nobody looked are counted in the JSON and in the finding, and so are calls
// that are too many to list.
func TestWhatIsNotListed(t *testing.T) {
	for name, c := range map[string]struct {
		early, late      int // running calls that began before and after the first look
		listed, unlisted int
		want             []string
	}{
		"early calls":      {2, 0, 0, 2, []string{"The running calls began while nobody looked at this page", "goroutine dump"}},
		"some early calls": {1, 2, 2, 1, []string{"Running: 2 × /a/Runs (up to 10 s). Not listed: 1 permit of calls that began while nobody looked"}},
		"no early call":    {0, 2, 2, 0, []string{"Running: 2 × /a/Runs (up to 10 s). The 100 that have waited longest: 100 × /a/Waits (up to 10 s)."}},
		"too many calls":   {0, 130, 100, 30, []string{"Running: 100 × /a/Runs (up to 10 s). Not listed: 30 permits"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := must(admit.New(admit.WithFixedLimit(c.early+c.late), admit.WithQueue(admit.QueueConfig{Policy: admit.Block})))(t)
				h := must(debug.NewHandler(g))(t)
				ctx, cancel := context.WithCancel(t.Context())
				s := &stage{t: t, gate: g, ctx: ctx}
				s.runs(c.early, admit.Call{Method: "/a/Runs"})
				look(t, h)
				s.runs(c.late, admit.Call{Method: "/a/Runs"})
				s.waits(150, admit.Call{Method: "/a/Waits"})
				time.Sleep(10 * time.Second)
				wantSays(t, name, finding(t, h, "gate default"), c.want...)
				shown := look(t, h).GetGates()[0]
				if got := len(shown.GetRunning()); got != c.listed || int(shown.GetUnlisted()) != c.unlisted {
					t.Errorf("JSON: got %d running and %d unlisted, want %d and %d", got, shown.GetUnlisted(), c.listed, c.unlisted)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// The finding about memory says how much work is held, so that a leak can be told from load.
func TestMemoryThatIsNotWork(t *testing.T) {
	for name, busy := range map[string]bool{"a leak": false, "too much work": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := must(admit.New(admit.WithLimit(must(limit.NewFixed(4))(t))))(t)
				if busy {
					for range 3 {
						must(g.Acquire(t.Context(), admit.Call{}))(t)
					}
				}
				used := pressure.NewSignal("memory", func() (float64, error) { return 0.9, nil })
				m := must(pressure.New(pressure.WithName("process"), pressure.WithSignals(used)))(t)
				m.Start()
				defer m.Stop()
				time.Sleep(10 * time.Second)
				h := must(debug.NewHandler(g, m))(t)
				text := finding(t, h, "monitor process")
				wantSays(t, name, text, "memory is at 90 %", "Of 4 permits")
				if got := strings.Contains(text, "heap profile"); got == busy {
					t.Errorf("%s: got the advice of a heap profile %t, want %t: %q", name, got, !busy, text)
				}
			})
		})
	}
}

// A consumer that pauses is a finding with its cause, and the numbers of its meter are shown.
func TestAConsumerThatPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := broker.NewMeter("orders")
		h := must(debug.NewHandler(meter))(t)
		if got := finding(t, h, "broker orders"); got != "" {
			t.Errorf("before any message: got the finding %q, want none", got)
		}
		source := must(broker.NewSource(endless{}, broker.SourceConfig{Name: "orders", Meter: meter}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- broker.Consume(ctx, source, func(context.Context, *broker.Message) error {
				return status.Error(codes.Unavailable, "warehouse: closed")
			}, broker.ConsumeConfig{Meter: meter, MaxPause: time.Hour, Grace: time.Second})
		}()
		text := ""
		for range 60 { // a short pause may fall between two looks
			time.Sleep(time.Second)
			if text = finding(t, h, "broker orders"); text != "" {
				break
			}
		}
		wantSays(t, "a pause", text, "A consumer pauses, because", "warehouse: closed")
		shown := look(t, h).GetOthers()
		if len(shown) != 1 || shown[0].GetKind() != "broker" || shown[0].GetName() != "orders" || len(shown[0].GetFields()) < 10 {
			t.Errorf("others: got %v, want the numbers of the broker", shown)
		}
		cancel()
		<-ended
	})
}

// An endless is a broker that always has a message.
type endless struct{}

// Fetch implements broker.Fetcher.
func (endless) Fetch(context.Context, int) ([]*broker.Message, error) {
	return []*broker.Message{broker.NewMessage(broker.Message{}, settler{})}, nil
}

// Close implements broker.Fetcher.
func (endless) Close(context.Context) error { return nil }

// A settler settles nothing.
type settler struct{}

func (settler) Ack(context.Context) error                { return nil }
func (settler) Requeue(context.Context) error            { return nil }
func (settler) DeadLetter(context.Context, string) error { return nil }
func (settler) Extend(context.Context) error             { return nil }
