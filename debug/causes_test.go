package debug_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/limit"
)

// A level is a Pressure of one signal.
type level string

func (l level) Pressure() (level uint8, signal string) { return 3, string(l) }

// A cause makes a gate refuse calls for one reason.
type cause struct {
	why    admit.Reason
	opts   []admit.Option
	make   func(t *testing.T, s *stage)
	says   string // why, in the list of refusals
	advice string // what to change, in the finding
}

// A stage is a gate with calls that go on until the test ends.
type stage struct {
	t    *testing.T
	gate *admit.Gate
	ctx  context.Context
	stop context.CancelFunc
}

// runs lets calls run.
func (s *stage) runs(n int, c admit.Call) {
	for range n {
		p := must(s.gate.Acquire(s.ctx, c))(s.t)
		held := new(admit.Permit)
		p.MoveTo(held)
		s.t.Cleanup(func() { held.Release(admit.Ignored) })
	}
}

// asks wants a permit, and gives it back when the call is admitted.
func (s *stage) asks(ctx context.Context, c admit.Call) {
	if p, err := s.gate.Acquire(ctx, c); err == nil {
		p.Release(admit.Ignored)
	}
}

// waits lets calls wait.
func (s *stage) waits(n int, c admit.Call) {
	for range n {
		go s.asks(s.ctx, c)
	}
	synctest.Wait()
}

// within asks with a deadline.
func (s *stage) within(d time.Duration, c admit.Call) {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	s.asks(ctx, c)
}

var (
	queueOf = func(n int) admit.Option {
		return admit.WithQueue(admit.QueueConfig{Capacity: n, MaxWait: 300 * ms})
	}
	call = admit.Call{Method: "/shop.v1.Shop/Buy"}
	of   = func(c admit.Class) admit.Call { return admit.Call{Method: call.Method, Class: c} }
)

// causes are all reasons of a gate, and the settings that cause them.
var causes = map[string]cause{
	"too many calls": {
		why: admit.QueueFull, opts: []admit.Option{admit.WithoutQueue()},
		make: func(_ *testing.T, s *stage) { s.runs(10, call); s.asks(s.ctx, call) },
		says: "No permit and no place in the queue was free in time: 10 of 10 permits were in use", advice: "Add instances",
	},
	"the Max of a class": {
		why:    admit.QueueFull,
		opts:   []admit.Option{admit.WithoutQueue(), admit.WithClassConfig(admit.Background, admit.ClassConfig{Max: 0.2})},
		make:   func(_ *testing.T, s *stage) { s.runs(2, of(admit.Background)); s.asks(s.ctx, of(admit.Background)) },
		says:   "2 of 10 permits were in use and 0 calls waited, and class background held 2, which is all that its Max allows",
		advice: "Its Max in WithClassConfig keeps the class from more permits.",
	},
	"the Max of a class that waits": {
		why:  admit.WaitedTooLong,
		opts: []admit.Option{queueOf(8), admit.WithClassConfig(admit.Background, admit.ClassConfig{Max: 0.2})},
		make: func(_ *testing.T, s *stage) {
			s.runs(2, of(admit.Background))
			s.waits(1, of(admit.Background))
			time.Sleep(300 * ms)
		},
		says: "class background held 2, which is all that its Max allows", advice: "Its Max in WithClassConfig",
	},
	"a call that costs more than is free": {
		why:  admit.QueueFull,
		opts: []admit.Option{admit.WithoutQueue()},
		make: func(_ *testing.T, s *stage) {
			s.runs(8, call)
			s.asks(s.ctx, admit.Call{Method: call.Method, Cost: 3})
		},
		says: "8 of 10 permits were in use and 0 calls waited. 2 were free, but kept for the share of another class or for other tenants, " +
			"or fewer than the call costs.",
		advice: "Add instances",
	},
	"a call of a higher class": {
		why: admit.Evicted, opts: []admit.Option{queueOf(1)},
		make: func(_ *testing.T, s *stage) {
			s.runs(10, call)
			s.waits(1, of(admit.Sheddable))
			s.waits(1, of(admit.Critical))
		},
		says: "It gave up its place to a call of a higher class", advice: "Calls of a higher class or of smaller tenants took the places.",
	},
	"a short deadline": {
		why: admit.DeadlineTooClose, opts: []admit.Option{queueOf(100)},
		make: func(_ *testing.T, s *stage) {
			for range 100 { // calls take 20 ms
				p := must(s.gate.Acquire(s.ctx, call))(s.t)
				time.Sleep(20 * ms)
				p.Release(admit.Success)
			}
			s.runs(10, call)
			s.within(10*ms, call)
		},
		says: "It could not end before its deadline: 10 of 10 permits were in use", advice: "The callers give less time than a call takes",
	},
	"a long wait": {
		why: admit.WaitedTooLong, opts: []admit.Option{queueOf(100)},
		make:   func(_ *testing.T, s *stage) { s.runs(10, call); s.waits(1, call); time.Sleep(300 * ms) },
		says:   "It reached the longest wait that the queue allows: 10 of 10 permits were in use and 0 calls waited. It had waited for 300 ms.",
		advice: "Find out why permits come back slowly",
	},
	"a drain": {
		why: admit.Draining, make: func(_ *testing.T, s *stage) { s.gate.Drain(); s.asks(s.ctx, call) },
		says: "The server is shutting down.", advice: "That is as it should be while the server stops.",
	},
	"a tenant's share": {
		why: admit.OverShare, opts: []admit.Option{queueOf(4)},
		make: func(_ *testing.T, s *stage) {
			s.runs(9, admit.Call{Tenant: "greedy"})
			s.runs(1, admit.Call{Tenant: "other"})
			s.waits(3, admit.Call{Tenant: "greedy"})
			s.waits(1, admit.Call{Tenant: "other"})
			s.asks(s.ctx, admit.Call{Tenant: "greedy"})
		},
		says: "Its tenant has more than an equal share, and other tenants want theirs", advice: "The table of tenants shows which.",
	},
	"a quota": {
		why:  admit.OverQuota,
		opts: []admit.Option{admit.WithQuotas(admit.QuotaConfig{Classes: map[admit.Class]admit.Rate{admit.Default: {PerSecond: 0.001, Burst: 1}}})},
		make: func(_ *testing.T, s *stage) { s.asks(s.ctx, call); s.asks(s.ctx, call) },
		says: "The quota of its class or tenant is used up. The load of the server does not matter", advice: "Raise the quota",
	},
	"open calls": {
		why: admit.TooManyOpen, opts: []admit.Option{admit.WithMaxOpen(3)},
		make: func(_ *testing.T, s *stage) { s.runs(3, call); s.asks(s.ctx, call) },
		says: "As many calls are open as WithMaxOpen allows", advice: "Look for streams that do not end.",
	},
	"memory": {
		why: admit.MemoryPressure, opts: []admit.Option{admit.WithPressure(level("memory"))}, make: func(_ *testing.T, s *stage) { s.asks(s.ctx, call) },
		says: "The process is close to its memory limit, so calls of class default are refused.", advice: "Find out what holds the memory",
	},
	"the garbage collector": {
		why: admit.GCPressure, opts: []admit.Option{admit.WithPressure(level("gc"))}, make: func(_ *testing.T, s *stage) { s.asks(s.ctx, call) },
		says: "The garbage collector takes the processors", advice: "Allocate less",
	},
	"processors": {
		why: admit.ProcessorPressure, opts: []admit.Option{admit.WithPressure(level("processors"))}, make: func(_ *testing.T, s *stage) { s.asks(s.ctx, call) },
		says: "Goroutines wait for processors", advice: "Give the process more processors",
	},
	"a resource of the program": {
		why: admit.UnderPressure, opts: []admit.Option{admit.WithPressure(level("connections"))}, make: func(_ *testing.T, s *stage) { s.asks(s.ctx, call) },
		says: "A resource of the program runs out", advice: "See under Pressure which resource runs out",
	},
}

// The page says for each reason why the call was refused, and what to change.
func TestTheCauseOfARefusal(t *testing.T) {
	seen := map[admit.Reason]bool{}
	for name, c := range causes {
		seen[c.why] = true
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ten := must(limit.NewFixed(10))(t)
				s := &stage{t: t, gate: must(admit.New(append([]admit.Option{admit.WithName("api"), admit.WithLimit(ten)}, c.opts...)...))(t)}
				s.ctx, s.stop = context.WithCancel(t.Context())
				h := must(debug.NewHandler(s.gate))(t)
				c.make(t, s)
				shown := look(t, h)
				why, text := "", ""
				for _, r := range shown.GetGates()[0].GetRefusals() {
					if r.GetReason() == c.why.String() {
						why = r.GetExplanation()
						break
					}
				}
				for _, f := range shown.GetFindings() {
					text += f.GetText() + "\n"
				}
				if !strings.Contains(why, c.says) {
					t.Errorf("why: got %q, want %q in it, in %v", why, c.says, shown.GetGates()[0].GetRefusals())
				}
				if !strings.Contains(text, c.advice) {
					t.Errorf("findings: got %q, want the advice %q", text, c.advice)
				}
				if c.why != admit.Draining && !strings.Contains(text, c.why.String()) {
					t.Errorf("findings: got %q, want the reason %q", text, c.why)
				}
				s.stop()
				synctest.Wait()
			})
		})
	}
	for why := range admit.Reason(admit.NumReasons) {
		if !seen[why] {
			t.Errorf("%s: got no row, want one", why)
		}
	}
}

// Streams that are ended because their clients take nothing are a finding for some seconds.
func TestStreamsThatWereEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams := must(admit.New(admit.WithName("streams"), admit.WithFixedLimit(10)))(t)
		sends := service{subscribe: func(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
			for {
				if err := stream.Send(&demopb.SubscribeResponse{Number: 1}); err != nil {
					return err
				}
			}
		}}
		p := grpctest.Start(t, sends.register, grpctest.ServerOptions(must(interceptors.Server(
			interceptors.ServerConfig{Gate: must(admit.New())(t), Streams: streams}, interceptors.WithStreams(interceptors.StreamRule{SendStall: 20 * time.Second}, interceptors.Methods("/weir.demo.v1.StreamService/Subscribe"))))(t)...))
		h := must(debug.NewHandler(streams))(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		must(demopb.NewStreamServiceClient(p.Conn).Subscribe(ctx))(t) // and nobody reads it
		found := 0
		for range 60 {
			time.Sleep(time.Second)
			if text := finding(t, h, "gate streams"); text != "" {
				wantSays(t, "a stream that was ended", text, "1 stream was ended in the last", "the clients took no messages", "look there")
				found++
			}
		}
		if found < 5 || found > 20 {
			t.Errorf("a stream that was ended: got the finding at %d of 60 looks, one a second, want it for five to 20 s", found)
		}
	})
}
