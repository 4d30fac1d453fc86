package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/throttle"
)

// newThrottle returns a throttle that draws the same numbers in every run.
func newThrottle(tb testing.TB, c throttle.Config) *throttle.Throttle {
	tb.Helper()
	t, err := throttle.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	throttle.Drawn(t, func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Float64()
	})
	return t
}

// send makes a call through a throttle, without a network, and reports whether the
// invoker was called.
func send(ctx context.Context, t *throttle.Throttle, invoker grpc.UnaryInvoker) bool {
	sent := false
	_ = throttle.Unary(t)(ctx, work, nil, nil, nil, func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption,
	) error {
		sent = true
		return invoker(ctx, method, req, reply, cc, opts...)
	})
	return sent
}

// target returns the only target of a throttle.
func target(tb testing.TB, t *throttle.Throttle) throttle.TargetStats {
	tb.Helper()
	s := t.Stats()
	if len(s) != 1 {
		tb.Fatalf("targets: got %v, want one", s)
	}
	return s[0]
}

var (
	well = fails(codes.OK)
	busy = fails(codes.Unavailable)
)

// What counts, and as what.
func TestThrottleCounts(t *testing.T) {
	gate := strict(t, 1)
	fill(t, gate)
	local := func(ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		return interceptors.UnaryClient(gate)(ctx, m, req, reply, cc, well, opts...)
	}
	for name, c := range map[string]struct {
		invoker            grpc.UnaryInvoker
		accepted, rejected uint64
	}{
		"nothing":                   {well, 1, 0},
		"NOT_FOUND":                 {fails(codes.NotFound), 1, 0},
		"INTERNAL":                  {fails(codes.Internal), 1, 0},
		"DEADLINE_EXCEEDED":         {fails(codes.DeadlineExceeded), 1, 0},
		"UNAVAILABLE":               {busy, 0, 1},
		"UNAVAILABLE of a far gate": {ends(detailed(codes.Unavailable, "weir", "QUEUE_FULL")), 0, 1},
		"a quota":                   {fails(codes.ResourceExhausted), 0, 0},
		"a far quota":               {ends(detailed(codes.ResourceExhausted, "example.com", "QUEUE_FULL")), 0, 0},
		"a far tenant's share":      {ends(detailed(codes.ResourceExhausted, "weir", "OVER_SHARE")), 0, 0},
		"a far client's full gate":  {ends(detailed(codes.ResourceExhausted, "weir", "QUEUE_FULL")), 0, 1},
		"a far tap":                 {ends(status.Error(codes.ResourceExhausted, `weir: the server is full (gate "far")`)), 0, 1},
		"a message too large":       {ends(status.Error(codes.ResourceExhausted, "grpc: received message larger than max (2 vs. 1)")), 0, 0},
		"CANCELED":                  {fails(codes.Canceled), 0, 0},
		"our gate":                  {local, 0, 0},
		"without a status": {func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			return errors.New("x")
		}, 0, 0},
		"panic": {func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { panic("x") }, 0, 0},
		"Goexit": {func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			runtime.Goexit()
			return nil
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			th := newThrottle(t, throttle.Config{})
			aside(func() { send(t.Context(), th, c.invoker) })
			aside(func() {
				_, _ = throttle.Stream(th)(t.Context(), &grpc.StreamDesc{}, nil, work,
					func(
						ctx context.Context, _ *grpc.StreamDesc, cc *grpc.ClientConn, m string, opts ...grpc.CallOption,
					) (grpc.ClientStream, error) {
						err := c.invoker(ctx, m, nil, nil, cc, opts...)
						s := &deaf{Err: err}
						if err == nil {
							_ = opts[len(opts)-1].(grpc.OnFinishCallOption).OnFinish // and again, when it is read
							opts[len(opts)-1].(grpc.OnFinishCallOption).OnFinish(nil)
						}
						return s, err
					})
			})
			if got := target(t, th); got.Accepted != 2*c.accepted || got.Rejected != 2*c.rejected {
				t.Errorf("target: got %+v, want twice %d accepted and %d rejected", got, c.accepted, c.rejected)
			}
		})
	}
}

// load makes rate calls a second until stop says so, or for d, and returns how many
// were sent.
func load(ctx context.Context, th *throttle.Throttle, rate int, d time.Duration, invoker grpc.UnaryInvoker) (sent int) {
	for range int(d / (100 * time.Millisecond)) {
		for range rate / 10 {
			if send(ctx, th, invoker) {
				sent++
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return sent
}

// A dead target gets a few calls a second, however many there are.
func TestThrottleDeadTarget(t *testing.T) {
	for _, c := range []struct {
		cfg       throttle.Config
		rate      int
		low, high int // in ten minutes
	}{
		{throttle.Config{}, 100, 900, 1400}, // one in each half second
		{throttle.Config{}, 1000, 900, 1400},
		{throttle.Config{K: 1.1}, 1000, 900, 1400},
		{throttle.Config{Window: 40 * time.Second}, 1000, 50, 250}, // one in ten seconds at least
	} {
		t.Run(fmt.Sprint(c.cfg.Window, c.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThrottle(t, c.cfg)
				load(t.Context(), th, c.rate, time.Minute, busy)
				if sent := load(t.Context(), th, c.rate, 10*time.Minute, busy); sent < c.low || sent > c.high {
					t.Errorf("sent in 10 minutes: got %d, want %d to %d", sent, c.low, c.high)
				}
			})
		})
	}
}

// limited accepts rate calls a second.
func limited(rate float64) grpc.UnaryInvoker {
	tokens, last := 0.0, time.Now()
	return func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		tokens = math.Min(tokens+rate*time.Since(last).Seconds(), 10)
		last = time.Now()
		if tokens < 1 {
			return status.Error(codes.Unavailable, "")
		}
		tokens--
		return nil
	}
}

// A target that accepts a part of what it is sent gets K times what it accepts.
func TestThrottlePartialTarget(t *testing.T) {
	for _, k := range []float64{1.1, 1.5, 2, 4} {
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(t, throttle.Config{K: k})
			invoker := limited(20)
			load(t.Context(), th, 200, time.Minute, invoker)
			before := target(t, th)
			sent := load(t.Context(), th, 200, 10*time.Minute, invoker)
			accepted := float64(target(t, th).Accepted - before.Accepted)
			if got := float64(sent) / accepted; got < k*0.9 || got > k*1.15+0.25 { // and what it takes to notice, after seconds without a refusal
				t.Errorf("sent for each that is accepted: got %.2f, want about K = %v (from %+v)", got, k, before)
			}
			if accepted < 0.8*20*600 {
				t.Errorf("accepted: got %v, want most of the %d that the target could", accepted, 20*600)
			}
		})
	}
}

// A target that refuses one call of a hundred is sent all others, however eager the throttle.
func TestThrottleOfRareRefusals(t *testing.T) {
	for _, k := range []float64{1, 1.01, 1.1, 2} {
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(t, throttle.Config{K: k})
			n := 0
			rarely := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				if n++; n%100 == 0 {
					return errDown
				}
				return nil
			}
			if sent := load(t.Context(), th, 1000, time.Minute, rarely); sent < 59_400 {
				t.Errorf("K = %v: got %d of 60000 calls sent, want nearly all", k, sent)
			}
		})
	}
}

// Few refusals are no evidence: whatever comes first, nothing is refused here.
func TestThrottleNeedsEvidence(t *testing.T) {
	for first := range 10 {
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(t, throttle.Config{})
			for range first {
				send(t.Context(), th, busy)
			}
			load(t.Context(), th, 100, 20*time.Second, well)
			for range 50 { // a refusal now and then, with as many calls between
				load(t.Context(), th, 10, 100*time.Millisecond, busy)
				load(t.Context(), th, 10, 200*time.Millisecond, well)
			}
			if s := target(t, th); s.Refused > 0 {
				t.Errorf("after %d refusals at first: got %+v, want no call refused here", first, s)
			}
		})
	}
}

// The first calls of a client come back after many others were sent, which is no reason
// to refuse those of a slow target.
func TestThrottleOfASlowTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{})
		r := start(t, works(2*time.Second), nil, grpc.WithUnaryInterceptor(throttle.Unary(th)))
		send(t.Context(), th, busy)
		made, served := callers(t, r.DemoServiceClient, 10*time.Second, client{Period: 5 * time.Millisecond, Gives: always(time.Minute), Patient: true})
		if served != made {
			t.Errorf("served: got %d, want all %d", served, made)
		}
	})
}

// A target that begins to refuse is spared within two seconds, and gets everything two
// seconds after it has stopped, at any rate and however it refuses.
func TestThrottleActsAndLetsGo(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	n := 0
	for name, refuses := range map[string]grpc.UnaryInvoker{
		"three of four, by lot": func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			if r.IntN(4) > 0 {
				return errDown
			}
			return nil
		},
		"three of four, in turn": func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			if n++; n%4 > 0 {
				return errDown
			}
			return nil
		},
		"all": busy,
	} {
		for _, rate := range []int{20, 100, 1000} {
			for _, healthy := range []time.Duration{0, 10 * time.Second, time.Minute} {
				t.Run(fmt.Sprint(name, "/", rate, "/s/", healthy), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						th := newThrottle(t, throttle.Config{})
						refusedHere := func(d time.Duration, invoker grpc.UnaryInvoker) float64 {
							offered := float64(rate) * d.Seconds()
							return 1 - float64(load(t.Context(), th, rate, d, invoker))/offered
						}
						if got := refusedHere(healthy, well); got > 0 {
							t.Errorf("refused of a healthy target's: got %.3f, want 0", got)
						}
						refusedHere(2*time.Second, refuses)
						if got := refusedHere(8*time.Second, refuses); got < 0.5 {
							t.Errorf("refused from 2 s on: got %.3f, want at least 0.5", got)
						}
						refusedHere(2*time.Second, well)
						if got := refusedHere(10*time.Second, well); got > 0 {
							t.Errorf("refused from 2 s after the end: got %.3f, want 0", got)
						}
					})
				})
			}
		}
	}
}

// Whatever has happened, a healthy target gets everything two seconds later; and fewer
// refusals than are evidence never make the throttle refuse.
func TestThrottleHeals(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := throttle.Config{K: rapid.Float64Range(1, 4).Draw(rt, "k"), Evidence: rapid.IntRange(1, 30).Draw(rt, "evidence")}
		type step struct {
			wait  time.Duration
			calls int
			ends  codes.Code
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				time.Duration(rapid.SampledFrom([]int{0, 0, 1, 50, 500, 1999, 2000, 3600_000}).Draw(rt, "ms")) * time.Millisecond,
				rapid.IntRange(1, 40).Draw(rt, "calls"),
				rapid.SampledFrom([]codes.Code{codes.OK, codes.Unavailable, codes.Unavailable, codes.ResourceExhausted, codes.Canceled}).Draw(rt, "ends"),
			}
		}), 1, 40).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(t, cfg)
			rejected := 0
			for _, s := range steps {
				time.Sleep(s.wait)
				for range s.calls {
					sent := send(t.Context(), th, fails(s.ends))
					if !sent && rejected < cfg.Evidence {
						rt.Fatalf("a call was refused after %d refusals, want at least %d", rejected, cfg.Evidence)
					}
					if sent && s.ends == codes.Unavailable {
						rejected++
					}
				}
			}
			load(t.Context(), th, 100, 2*time.Second, well)
			before := target(t, th)
			load(t.Context(), th, 100, 5*time.Second, well)
			if after := target(t, th); after.Refused != before.Refused || after.Probability != 0 {
				rt.Fatalf("a healthy target from 2 s on: got %+v, before %+v, want no call refused", after, before)
			}
		})
	})
}

// An hour without calls is forgotten: the first ones, however many, all go out.
func TestThrottleAfterIdleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{})
		load(t.Context(), th, 100, time.Minute, busy)
		time.Sleep(time.Hour)
		before := target(t, th).Refused
		var calls sync.WaitGroup
		for range 500 {
			calls.Go(func() {
				send(t.Context(), th, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					time.Sleep(time.Second)
					return nil
				})
			})
		}
		calls.Wait()
		if got := target(t, th).Refused - before; got != 0 {
			t.Errorf("refused of 500 calls at once after an hour: got %d, want 0", got)
		}
	})
}

// What is refused of one method, one class or one caller is not refused of others.
func TestThrottleSparesOthers(t *testing.T) {
	const reads, writes = "/shop.Orders/Read", "/shop.Orders/Write"
	sheddable := interceptors.ContextWithClass(t.Context(), admit.Sheddable)
	for name, c := range map[string]struct {
		ctx    context.Context // of the writes
		method string          // also
		err    error
	}{
		"a quota":                   {t.Context(), writes, status.Error(codes.ResourceExhausted, "quota")},
		"a quota within the method": {t.Context(), reads, status.Error(codes.ResourceExhausted, "quota")},
		"a share within the method": {t.Context(), reads, detailed(codes.ResourceExhausted, "weir", "OVER_SHARE")},
		"a quota of another class":  {sheddable, reads, status.Error(codes.ResourceExhausted, "quota")},
		"a method that is down":     {t.Context(), writes, status.Error(codes.Unavailable, "no disk")},
		"a full gate behind it":     {t.Context(), writes, detailed(codes.ResourceExhausted, "weir", "QUEUE_FULL")},
		"a full gate, lower class":  {sheddable, reads, detailed(codes.Unavailable, "weir", "QUEUE_FULL")},
		"forbidden":                 {t.Context(), reads, status.Error(codes.PermissionDenied, "")},
		"not there":                 {t.Context(), reads, status.Error(codes.NotFound, "")},
		"failed":                    {t.Context(), reads, status.Error(codes.Internal, "")},
		"aborted":                   {t.Context(), reads, status.Error(codes.Aborted, "")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThrottle(t, throttle.Config{})
				call := throttle.Unary(th)
				served, offered := 0, 0
				for i := range 20_000 {
					if i%5 < 3 {
						_ = call(c.ctx, c.method, nil, nil, nil, ends(c.err))
					} else {
						offered++
						if call(t.Context(), reads, nil, nil, nil, well) == nil {
							served++
						}
					}
					time.Sleep(time.Millisecond)
				}
				if served != offered {
					t.Errorf("reads: got %d of %d served, want all (%+v)", served, offered, th.Stats())
				}
			})
		})
	}
}

// Where one instance accepts its calls, a throttle loses none of them.
func TestThrottleLosesNothingWhileAnInstanceServes(t *testing.T) {
	const rate, seconds = 100, 20
	ok := takes(10 * time.Millisecond)
	for name, instances := range map[string][]instance{
		"one of two":           {down, ok},
		"two of three":         {down, ok, down},
		"four of five":         {down, down, takes(40 * time.Millisecond), down, down},
		"one begins to refuse": {ok, until(10*time.Second, ok, down), down},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThrottle(t, throttle.Config{})
				client := inMemory(t, "round_robin", true, instances, grpc.WithUnaryInterceptor(throttle.Unary(th)))
				got := sum(offer(t, client, time.Second/rate, time.Second, seconds*time.Second))
				if want := seconds * rate / len(instances); got < want-2 || target(t, th).Refused > 0 {
					t.Errorf("served: got %d, want %d (%+v)", got, want, target(t, th))
				}
			})
		})
	}
}

// Over a network: 20 calls a second to a server that is well for a minute, can do five
// a second for four minutes, refuses all for two and is well again.
func TestThrottleTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, next := time.Now(), time.Duration(0)
		svc := &service{OnWork: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			at := time.Since(began)
			if at >= 5*time.Minute && at < 7*time.Minute || at >= time.Minute && at < 5*time.Minute && at < next {
				return nil, status.Error(codes.Unavailable, "")
			}
			next = at + 200*time.Millisecond
			return &demopb.WorkResponse{}, nil
		}}
		th := newThrottle(t, throttle.Config{})
		r := start(t, svc, nil, grpc.WithUnaryInterceptor(throttle.Unary(th)))
		var out strings.Builder
		fmt.Fprintln(&out, "   s  sent  of them accepted  refused here  probability")
		for s := 15; s <= 600; s += 15 {
			var sent, accepted, refused int
			for range 15 * 20 {
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				switch {
				case errors.Is(err, throttle.ErrThrottled):
					refused++
				case err == nil:
					accepted++
					sent++
				default:
					sent++
				}
				time.Sleep(50 * time.Millisecond)
			}
			fmt.Fprintf(&out, "%4d  %4d  %16d  %12d  %11.3f\n", s, sent, accepted, refused, target(t, th).Probability)
		}
		golden(t, "throttle.txt", out.String())
	})
}

func TestThrottleRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{})
		call := throttle.Unary(th)
		var err error
		for err = errDown; !errors.Is(err, throttle.ErrThrottled); {
			err = call(t.Context(), work, nil, nil, nil, busy)
		}
		wantCode(t, err, codes.Unavailable)
		if !errors.Is(err, throttle.ErrThrottled) {
			t.Errorf("errors.Is(%v, ErrThrottled): got false, want true", err)
		}
		wantDetails(t, err, "THROTTLED", 50*time.Millisecond, 500*time.Millisecond)
		for range 1000 {
			_ = call(t.Context(), work, nil, nil, nil, busy)
		}
		for err = errDown; !errors.Is(err, throttle.ErrThrottled); {
			err = call(t.Context(), work, nil, nil, nil, busy)
		}
		wantDetails(t, err, "THROTTLED", time.Second, 3300*time.Millisecond)
		for err = errDown; !errors.Is(err, throttle.ErrThrottled); {
			_, err = throttle.Stream(th)(t.Context(), &grpc.StreamDesc{}, nil, work, func(
				context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption,
			) (grpc.ClientStream, error) {
				return nil, errDown
			})
		}
		wantCode(t, err, codes.Unavailable)
	})
}

// An admitted call allocates nothing.
func TestThrottleAllocatesNothing(t *testing.T) {
	th := newThrottle(t, throttle.Config{})
	call := throttle.Unary(th)
	for _, invoker := range []grpc.UnaryInvoker{well, busy} {
		if n := testing.AllocsPerRun(1000, func() { _ = call(t.Context(), work, nil, nil, nil, invoker) }); n != 0 {
			t.Errorf("allocations: got %v, want 0", n)
		}
	}
}

// A stream is accepted once its headers or a message are seen, long before it ends.
func TestThrottleStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{})
		refuse := false
		r := start(t, &service{OnExchange: func(s demopb.DemoService_ExchangeServer) error {
			if refuse {
				return status.Error(codes.Unavailable, "")
			}
			return echo(s)
		}}, nil, grpc.WithStreamInterceptor(throttle.Stream(th)))
		ctx, cancel := context.WithCancel(t.Context())
		s, err := r.Exchange(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := s.Send(&demopb.ExchangeRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		want := func(accepted, rejected uint64) {
			t.Helper()
			if got := target(t, th); got.Accepted != accepted || got.Rejected != rejected {
				t.Errorf("target: got %+v, want %d accepted and %d rejected", got, accepted, rejected)
			}
		}
		want(1, 0)
		cancel()
		synctest.Wait()
		want(1, 0)
		refuse = true
		wantCode(t, drainStream(t.Context(), r), codes.Unavailable)
		want(1, 1)
	})
}

func TestThrottleConcurrently(t *testing.T) {
	th, err := throttle.New(throttle.Config{Window: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	var sent atomic.Int64
	for i := range 8 {
		calls.Go(func() {
			for j := range 5000 {
				invoker := well
				if (i+j)%4 != 0 {
					invoker = busy
				}
				if send(t.Context(), th, invoker) {
					sent.Add(1)
				}
			}
		})
	}
	calls.Wait()
	s := target(t, th)
	if s.Allowed != uint64(sent.Load()) || s.Allowed+s.Refused != 40000 || s.Refused == 0 || s.Accepted+s.Rejected != s.Allowed {
		t.Errorf("target: got %+v, want %d sent of 40000", s, sent.Load())
	}
}

func TestThrottleBadConfig(t *testing.T) {
	_, err := throttle.New(throttle.Config{K: 0.5, Window: time.Millisecond, Evidence: -1})
	wantConfigError(t, err, "K: got 0.5, want 1 to 100", "Window: got 1ms, want 100ms to 1h0m0s", "Evidence: got -1, want 1 to 1000000")
	_, err = throttle.New(throttle.Config{K: math.NaN()})
	wantConfigError(t, err, "K: got NaN")
}

// A nil and a zero throttle are none.
func TestNoThrottle(t *testing.T) {
	for name, th := range map[string]*throttle.Throttle{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			stream := func(want error) {
				_, err := throttle.Stream(th)(t.Context(), &grpc.StreamDesc{}, nil, work, func(
					context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption,
				) (grpc.ClientStream, error) {
					return nil, want
				})
				wantCode(t, err, status.Code(want))
			}
			for range 100 {
				wantCode(t, throttle.Unary(th)(t.Context(), work, nil, nil, nil, busy), codes.Unavailable)
				stream(errDown)
			}
			wantCode(t, throttle.Unary(th)(t.Context(), work, nil, nil, nil, well), codes.OK)
			stream(nil)
			if got := th.Stats(); got != nil || th.Name() != "" {
				t.Errorf("stats and name: got %v and %q, want none", got, th.Name())
			}
		})
	}
}

// A call that panics or ends its goroutine while the throttle refuses loses nothing for
// good.
func TestThrottleAfterPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{})
		for range 60 {
			load(t.Context(), th, 100, 100*time.Millisecond, busy)
			aside(func() {
				send(t.Context(), th, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { panic("x") })
			})
		}
		load(t.Context(), th, 100, 2*time.Second, well)
		if sent := load(t.Context(), th, 100, time.Second, well); sent != 100 {
			t.Errorf("sent of 100: got %d, want all", sent)
		}
	})
}

func BenchmarkUnaryThrottle(b *testing.B) {
	for name, invoker := range map[string]grpc.UnaryInvoker{"Admitted": well, "Refused": busy} {
		b.Run(name, func(b *testing.B) {
			th := newThrottle(b, throttle.Config{})
			call := throttle.Unary(th)
			b.ReportAllocs()
			for b.Loop() {
				_ = call(b.Context(), work, nil, nil, nil, invoker)
			}
		})
	}
}

// Calls that came too late say nothing: a target that refuses all others is throttled.
func TestThrottleEndedContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{})
		r := start(t, does(func(context.Context) error { return status.Error(codes.Unavailable, "down") }), nil,
			grpc.WithUnaryInterceptor(throttle.Unary(th)), grpc.WithStreamInterceptor(throttle.Stream(th)))
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		sent := 0
		for range 1000 {
			_, err := r.Work(late, &demopb.WorkRequest{})
			wantCode(t, err, codes.DeadlineExceeded)
			_, err = r.Exchange(late)
			wantCode(t, err, codes.DeadlineExceeded)
			if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); !errors.Is(err, throttle.ErrThrottled) {
				sent++
			}
		}
		if s := target(t, th); s.Accepted != 0 || sent > 50 {
			t.Errorf("target: got %+v, and %d of 1000 sent, want none accepted, and at most 50", s, sent)
		}
	})
}

// The same for streams, which last until the end and count when they are answered.
func TestThrottleLosesNoStreamsWhileAnInstanceServes(t *testing.T) {
	const period, d = 20 * time.Millisecond, 20 * time.Second
	for name, instances := range map[string][]instance{
		"one of two":   {down, takes(10 * time.Millisecond)},
		"two of three": {down, takes(10 * time.Millisecond), down},
		"four of five": {down, down, takes(40 * time.Millisecond), down, down},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThrottle(t, throttle.Config{})
				client := inMemory(t, "round_robin", true, instances, grpc.WithStreamInterceptor(throttle.Stream(th)))
				got := subscribe(t, client, period, d)
				if want := int(d/period) / len(instances); got < want-4 || target(t, th).Refused > 0 {
					t.Errorf("answered: got %d, want %d (%+v)", got, want, target(t, th))
				}
			})
		})
	}
}
