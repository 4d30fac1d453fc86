package interceptors_test

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

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// newThrottle returns a throttle that draws the same numbers in every run.
func newThrottle(tb testing.TB, c interceptors.ThrottleConfig) *interceptors.Throttle {
	tb.Helper()
	t, err := interceptors.NewThrottle(c)
	if err != nil {
		tb.Fatal(err)
	}
	interceptors.Drawn(t, rand.New(rand.NewPCG(1, 2)).Float64)
	return t
}

// send makes a call through a throttle, without a network, and reports whether the
// invoker was called.
func send(ctx context.Context, t *interceptors.Throttle, invoker grpc.UnaryInvoker) bool {
	sent := false
	_ = interceptors.UnaryThrottle(t)(ctx, work, nil, nil, nil, func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption,
	) error {
		sent = true
		return invoker(ctx, method, req, reply, cc, opts...)
	})
	return sent
}

// target returns the only target of a throttle.
func target(tb testing.TB, t *interceptors.Throttle) interceptors.ThrottleStats {
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

// book is the probability of the book.
func book(k float64, requests, accepts int) float64 {
	return math.Max(0, (float64(requests)-k*float64(accepts))/float64(requests+1))
}

// Whatever happened when, the probability is the lower one of the book's over the
// two windows; here they are summed up from a list of all calls.
func TestThrottleProbability(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := rapid.Float64Range(1, 4).Draw(rt, "k")
		type step struct {
			wait     int // buckets
			accepted bool
			calls    int
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				rapid.SampledFrom([]int{0, 0, 1, 2, 4, 5, 6, 30, 60, 118, 119, 120, 121, 300}).Draw(rt, "wait"), rapid.Bool().Draw(rt, "accepted"), rapid.IntRange(1, 9).Draw(rt, "calls"),
			}
		}), 1, 30).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(t, interceptors.ThrottleConfig{K: k}) // 120 buckets of a second, 5 of them recent
			interceptors.Drawn(th, func() float64 { return 1 })     // refuses none
			type call struct {
				at       int
				accepted bool
			}
			var calls []call
			now := 0
			for _, s := range steps {
				time.Sleep(time.Duration(s.wait) * time.Second)
				now += s.wait
				for range s.calls {
					calls = append(calls, call{now, s.accepted})
					if s.accepted {
						send(t.Context(), th, well)
					} else {
						send(t.Context(), th, busy)
					}
				}
				var window, recent [2]int
				for _, c := range calls {
					for _, w := range []struct {
						sum     *[2]int
						seconds int
					}{{&window, 120}, {&recent, 5}} {
						if c.at > now-w.seconds {
							w.sum[0]++
							if c.accepted {
								w.sum[1]++
							}
						}
					}
				}
				got := target(t, th)
				want := math.Min(book(k, window[0], window[1]), book(k, recent[0], recent[1]))
				if got.Probability != want || got.Requests != window[0] || got.Accepts != window[1] {
					rt.Fatalf("after %d s: got %+v, want %d requests, %d accepts, probability %v", now, got, window[0], window[1], want)
				}
			}
		})
	})
}

// A call is refused when the number that is drawn is below the probability, and
// that counts as a request.
func TestThrottleDraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, interceptors.ThrottleConfig{})
		draw := 1.0
		interceptors.Drawn(th, func() float64 { return draw })
		for range 10 {
			send(t.Context(), th, busy)
		}
		for range 2 {
			send(t.Context(), th, well)
		}
		p := 8.0 / 13 // (12 - 2*2) / (12 + 1)
		draw = math.Nextafter(p, 0)
		if send(t.Context(), th, well) {
			t.Errorf("draw of %v: the call was sent, want it refused", draw)
		}
		draw = 9.0 / 14 // (13 - 2*2) / (13 + 1): the refused call is a request
		if !send(t.Context(), th, well) {
			t.Errorf("draw of %v: the call was refused, want it sent", draw)
		}
		if got := target(t, th); got.Requests != 14 || got.Accepts != 3 || got.Allowed != 13 || got.Refused != 1 {
			t.Errorf("target: got %+v, want 14 requests, 3 accepts, 13 allowed, 1 refused", got)
		}
	})
}

// What counts, and as what.
func TestThrottleCounts(t *testing.T) {
	gate := strict(t, 1)
	fill(t, gate)
	local := func(ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		return interceptors.UnaryClient(gate)(ctx, m, req, reply, cc, well, opts...)
	}
	for name, c := range map[string]struct {
		invoker           grpc.UnaryInvoker
		requests, accepts int
	}{
		"nothing":            {well, 1, 1},
		"NOT_FOUND":          {fails(codes.NotFound), 1, 1},
		"INTERNAL":           {fails(codes.Internal), 1, 1},
		"DEADLINE_EXCEEDED":  {fails(codes.DeadlineExceeded), 1, 1},
		"UNAVAILABLE":        {busy, 1, 0},
		"RESOURCE_EXHAUSTED": {fails(codes.ResourceExhausted), 1, 0},
		"CANCELED":           {fails(codes.Canceled), 0, 0},
		"our gate":           {local, 0, 0},
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
			th := newThrottle(t, interceptors.ThrottleConfig{})
			aside(func() { send(t.Context(), th, c.invoker) })
			aside(func() {
				_, _ = interceptors.StreamThrottle(th)(t.Context(), &grpc.StreamDesc{}, nil, work,
					func(
						ctx context.Context, _ *grpc.StreamDesc, cc *grpc.ClientConn, m string, opts ...grpc.CallOption,
					) (grpc.ClientStream, error) {
						err := c.invoker(ctx, m, nil, nil, cc, opts...)
						s := &deaf{err: err}
						if err == nil {
							_ = opts[len(opts)-1].(grpc.OnFinishCallOption).OnFinish // and again, when it is read
							opts[len(opts)-1].(grpc.OnFinishCallOption).OnFinish(nil)
						}
						return s, err
					})
			})
			if got := target(t, th); got.Requests != 2*c.requests || got.Accepts != 2*c.accepts {
				t.Errorf("target: got %+v, want twice %d requests and %d accepts", got, c.requests, c.accepts)
			}
		})
	}
}

// load makes rate calls a second until stop says so, or for d, and returns how many
// were sent.
func load(ctx context.Context, th *interceptors.Throttle, rate int, d time.Duration, invoker grpc.UnaryInvoker) (sent int) {
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

// A dead target gets what the law says: the more calls there are, the fewer are let
// through, one for each length of the window.
func TestThrottleDeadTarget(t *testing.T) {
	for _, c := range []struct {
		cfg       interceptors.ThrottleConfig
		rate      int
		low, high int // in 20 minutes
	}{
		{interceptors.ThrottleConfig{}, 100, 200, 330},                     // one in 4 to 5 seconds
		{interceptors.ThrottleConfig{}, 1000, 200, 330},                    // at any rate
		{interceptors.ThrottleConfig{Recent: 2 * time.Minute}, 100, 4, 20}, // the book: one in two minutes
		{interceptors.ThrottleConfig{Recent: 2 * time.Minute}, 1000, 4, 20},
	} {
		t.Run(fmt.Sprint(c.cfg.Recent, c.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThrottle(t, c.cfg)
				load(t.Context(), th, c.rate, time.Minute, busy)
				if sent := load(t.Context(), th, c.rate, 20*time.Minute, busy); sent < c.low || sent > c.high {
					t.Errorf("sent in 20 minutes: got %d, want %d to %d", sent, c.low, c.high)
				}
			})
		})
	}
}

// A target that accepts a part of what it is sent gets K times what it accepts.
func TestThrottlePartialTarget(t *testing.T) {
	for _, k := range []float64{1.1, 1.5, 2} {
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(t, interceptors.ThrottleConfig{K: k})
			tokens := 0.0 // the target accepts 20 calls a second of 100
			last := time.Now()
			limited := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				tokens = math.Min(tokens+20*time.Since(last).Seconds(), 10)
				last = time.Now()
				if tokens < 1 {
					return status.Error(codes.Unavailable, "")
				}
				tokens--
				return nil
			}
			load(t.Context(), th, 100, 10*time.Minute, limited)
			before := target(t, th)
			sent := load(t.Context(), th, 100, 10*time.Minute, limited)
			accepted := 20 * 600.0
			if got := float64(sent) / accepted; got < k*0.9 || got > k*1.15 {
				t.Errorf("sent for each that is accepted: got %.2f, want about K = %v (from %+v)", got, k, before)
			}
		})
	}
}

// A target that was gone for long and is back gets everything again within the window.
func TestThrottleRecovers(t *testing.T) {
	for _, c := range []struct {
		recent time.Duration
		within time.Duration
		least  time.Duration
	}{
		{0, 2 * time.Minute, 0},
		{2 * time.Minute, 30 * time.Minute, 8 * time.Minute}, // the book's law, and why it is not all
	} {
		t.Run(c.recent.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThrottle(t, interceptors.ThrottleConfig{Recent: c.recent})
				load(t.Context(), th, 500, 10*time.Minute, busy)
				began := time.Now()
				sent := 0
				for sent < 500 && time.Since(began) < time.Hour {
					sent = load(t.Context(), th, 500, time.Second, well)
				}
				took := time.Since(began)
				t.Logf("everything was sent again after %v", took)
				if took > c.within || took < c.least {
					t.Errorf("everything is sent again after: got %v, want %v to %v", took, c.least, c.within)
				}
				if sent = load(t.Context(), th, 500, 5*time.Minute, well); sent != 500*300 {
					t.Errorf("sent after that: got %d, want all %d", sent, 500*300)
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
		svc := &service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			at := time.Since(began)
			if at >= 5*time.Minute && at < 7*time.Minute || at >= time.Minute && at < 5*time.Minute && at < next {
				return nil, status.Error(codes.Unavailable, "")
			}
			next = at + 200*time.Millisecond
			return &demopb.WorkResponse{}, nil
		}}
		th := newThrottle(t, interceptors.ThrottleConfig{})
		r := start(t, svc, nil, grpc.WithUnaryInterceptor(interceptors.UnaryThrottle(th)))
		var out strings.Builder
		fmt.Fprintln(&out, "   s  sent  of them accepted  refused here  probability")
		for s := 15; s <= 600; s += 15 {
			var sent, accepted, refused int
			for range 15 * 20 {
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				switch {
				case errors.Is(err, interceptors.ErrThrottled):
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
		th := newThrottle(t, interceptors.ThrottleConfig{})
		interceptors.Drawn(th, func() float64 { return 0 })
		send(t.Context(), th, busy)
		call := interceptors.UnaryThrottle(th)
		err := call(t.Context(), work, nil, nil, nil, well) // at a half
		wantCode(t, err, codes.Unavailable)
		if !errors.Is(err, interceptors.ErrThrottled) {
			t.Errorf("errors.Is(%v, ErrThrottled): got false, want true", err)
		}
		wantDetails(t, err, "THROTTLED", 100*time.Millisecond, 330*time.Millisecond)
		for range 100_000 {
			err = call(t.Context(), work, nil, nil, nil, well)
		}
		wantDetails(t, err, "THROTTLED", 2500*time.Millisecond, 8300*time.Millisecond)
		_, err = interceptors.StreamThrottle(th)(t.Context(), &grpc.StreamDesc{}, nil, work, nil)
		wantCode(t, err, codes.Unavailable)
	})
}

// An admitted call allocates nothing.
func TestThrottleAllocatesNothing(t *testing.T) {
	th := newThrottle(t, interceptors.ThrottleConfig{})
	call := interceptors.UnaryThrottle(th)
	for _, invoker := range []grpc.UnaryInvoker{well, busy} {
		if n := testing.AllocsPerRun(1000, func() { _ = call(t.Context(), work, nil, nil, nil, invoker) }); n != 0 {
			t.Errorf("allocations: got %v, want 0", n)
		}
	}
}

// A stream is accepted once its headers or a message are seen, long before it ends.
func TestThrottleStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, interceptors.ThrottleConfig{})
		interceptors.Drawn(th, func() float64 { return 1 })
		refuse := false
		r := start(t, &service{exchange: func(s demopb.DemoService_ExchangeServer) error {
			if refuse {
				return status.Error(codes.Unavailable, "")
			}
			return echo(s)
		}}, nil, grpc.WithStreamInterceptor(interceptors.StreamThrottle(th)))
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
		want := func(requests, accepts int) {
			t.Helper()
			if got := target(t, th); got.Requests != requests || got.Accepts != accepts {
				t.Errorf("target: got %+v, want %d requests and %d accepts", got, requests, accepts)
			}
		}
		want(1, 1)
		cancel()
		synctest.Wait()
		want(1, 1)
		refuse = true
		wantCode(t, drainStream(t.Context(), r), codes.Unavailable)
		want(2, 1)
	})
}

func TestThrottleConcurrently(t *testing.T) {
	th, err := interceptors.NewThrottle(interceptors.ThrottleConfig{Window: 100 * time.Millisecond})
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
	if s.Allowed != uint64(sent.Load()) || s.Allowed+s.Refused != 40000 || s.Refused == 0 || s.Requests < s.Accepts || s.Accepts < 0 {
		t.Errorf("target: got %+v, want %d sent of 40000", s, sent.Load())
	}
}

func TestThrottleBadConfig(t *testing.T) {
	_, err := interceptors.NewThrottle(interceptors.ThrottleConfig{K: 0.5, Window: time.Millisecond, Recent: time.Hour})
	wantConfigError(t, err, "K: got 0.5, want 1 to 100", "Window: got 1ms, want 100ms to 24h0m0s", "Recent: got 1h0m0s")
	_, err = interceptors.NewThrottle(interceptors.ThrottleConfig{K: math.NaN(), Recent: time.Second})
	wantConfigError(t, err, "K: got NaN", "Recent: got 1s, want a hundredth of Window (2m0s)")
}

func TestNilThrottle(t *testing.T) {
	wantCode(t, interceptors.UnaryThrottle(nil)(t.Context(), work, nil, nil, nil, well), codes.Internal)
	_, err := interceptors.StreamThrottle(nil)(t.Context(), &grpc.StreamDesc{}, nil, work, nil)
	wantCode(t, err, codes.Internal)
}

func BenchmarkUnaryThrottle(b *testing.B) {
	for name, invoker := range map[string]grpc.UnaryInvoker{"Admitted": well, "Refused": busy} {
		b.Run(name, func(b *testing.B) {
			th := newThrottle(b, interceptors.ThrottleConfig{})
			if name == "Refused" {
				interceptors.Drawn(th, func() float64 { return 0 })
			}
			call := interceptors.UnaryThrottle(th)
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
		th := newThrottle(t, interceptors.ThrottleConfig{})
		r := start(t, does(func(context.Context) error { return status.Error(codes.Unavailable, "down") }), nil,
			standBack(t, interceptors.ClientConfig{Throttle: th})...)
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		sent := 0
		for range 1000 {
			_, err := r.Work(late, &demopb.WorkRequest{})
			wantCode(t, err, codes.DeadlineExceeded)
			_, err = r.Exchange(late)
			wantCode(t, err, codes.DeadlineExceeded)
			if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); !errors.Is(err, interceptors.ErrThrottled) {
				sent++
			}
		}
		if s := target(t, th); s.Accepts != 0 || sent > 50 {
			t.Errorf("target: got %+v, and %d of 1000 sent, want none accepted, and at most 50", s, sent)
		}
	})
}
