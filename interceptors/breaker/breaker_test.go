package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
)

// newBreaker returns a breaker whose circuits stay open for exactly OpenFor.
func newBreaker(tb testing.TB, c breaker.Config, opts ...breaker.Option) *breaker.Breaker {
	tb.Helper()
	b, err := breaker.New(c, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	breaker.Unjittered(b)
	return b
}

func breakerDial(b *breaker.Breaker) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(breaker.Unary(b)),
		grpc.WithStreamInterceptor(breaker.Stream(b)),
	}
}

// circuit returns the only circuit of a breaker.
func circuit(tb testing.TB, b *breaker.Breaker) breaker.CircuitStats {
	tb.Helper()
	s := b.Stats()
	if len(s) != 1 {
		tb.Fatalf("circuits: got %v, want one", s)
	}
	return s[0]
}

func wantState(tb testing.TB, b *breaker.Breaker, want breaker.State) {
	tb.Helper()
	if got := circuit(tb, b); got.State != want {
		tb.Errorf("circuit: got %+v, want it %v", got, want)
	}
}

// through makes n calls through a breaker, without a network, and returns the last
// error.
func through(ctx context.Context, b *breaker.Breaker, n int, invoker grpc.UnaryInvoker) (err error) {
	for range n {
		err = breaker.Unary(b)(ctx, work, nil, nil, nil, invoker)
	}
	return err
}

// open returns a breaker whose circuit has just opened, for 5 s.
func open(tb testing.TB, opts ...breaker.Option) *breaker.Breaker {
	tb.Helper()
	b := newBreaker(tb, breaker.Config{}, opts...)
	_ = through(tb.Context(), b, 20, fails(codes.Unavailable))
	wantState(tb, b, breaker.Open)
	return b
}

// A sickness is what a server does to calls at a time.
type sickness func(at time.Duration) (delay time.Duration, code codes.Code)

// The state of a circuit over time, and what becomes of ten calls a second, each
// with a deadline of some 2 s, against servers that are unwell in different ways.
func TestBreakerTraces(t *testing.T) {
	between := func(at, from, to time.Duration) bool { return at >= from && at < to }
	for name, c := range map[string]struct {
		cfg  breaker.Config
		sick sickness
		gone bool // the server goes for good after 10 s
	}{
		"healthy": {sick: func(at time.Duration) (time.Duration, codes.Code) {
			if at/(100*time.Millisecond)%2 == 1 {
				return 0, codes.NotFound // an answer
			}
			return 10 * time.Millisecond, codes.OK
		}},
		"sick": {sick: func(at time.Duration) (time.Duration, codes.Code) {
			if between(at, 10*time.Second, 32*time.Second) {
				return 0, codes.Unavailable
			}
			return 10 * time.Millisecond, codes.OK
		}},
		"flapping": {sick: func(at time.Duration) (time.Duration, codes.Code) {
			if at%(9*time.Second) >= 3*time.Second { // 3 s well, 6 s not
				return 0, codes.Internal
			}
			return 10 * time.Millisecond, codes.OK
		}},
		"slow": {
			cfg: breaker.Config{SlowCall: 300 * time.Millisecond},
			sick: func(at time.Duration) (time.Duration, codes.Code) {
				if between(at, 10*time.Second, 25*time.Second) {
					return 510 * time.Millisecond, codes.OK
				}
				return 10 * time.Millisecond, codes.OK
			},
		},
		"hanging": {sick: func(at time.Duration) (time.Duration, codes.Code) {
			if between(at, 10*time.Second, 25*time.Second) {
				return time.Hour, codes.OK
			}
			return 10 * time.Millisecond, codes.OK
		}},
		"gone": {gone: true, sick: func(time.Duration) (time.Duration, codes.Code) { return 10 * time.Millisecond, codes.OK }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { golden(t, name+".txt", trace(t, c.cfg, c.sick, c.gone)) })
		})
	}
}

func trace(t *testing.T, cfg breaker.Config, sick sickness, gone bool) string {
	began := time.Now()
	svc := &service{OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		delay, code := sick(time.Since(began))
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return &demopb.WorkResponse{}, status.Error(code, "")
	}}
	b := newBreaker(t, cfg)
	r := start(t, svc, nil, breakerDial(b)...)
	var ok, failed, refused atomic.Int64
	var calls sync.WaitGroup
	var out strings.Builder
	fmt.Fprintln(&out, "   s  state      went well  failed  refused")
	for s := range 40 {
		if gone && s == 10 {
			r.Server.Stop()
		}
		ok.Store(0)
		failed.Store(0)
		refused.Store(0)
		for range 10 {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2010*time.Millisecond)
				defer cancel()
				_, err := r.Work(ctx, &demopb.WorkRequest{})
				switch {
				case err == nil || status.Code(err) == codes.NotFound:
					ok.Add(1)
				case errors.Is(err, breaker.ErrOpen):
					refused.Add(1)
				default:
					failed.Add(1)
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		fmt.Fprintf(&out, "%4d  %-9v  %9d  %6d  %7d\n", s+1, circuit(t, b).State, ok.Load(), failed.Load(), refused.Load())
	}
	calls.Wait()
	return out.String()
}

// What each end of a call says about the server.
func TestBreakerVerdicts(t *testing.T) {
	detailed := func(code codes.Code, domain string) error {
		st, err := status.New(code, "").WithDetails(&errdetails.ErrorInfo{Reason: "X", Domain: domain})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	gate := strict(t, 1)
	fill(t, gate)
	local := interceptors.UnaryClient(gate)(t.Context(), work, nil, nil, nil, fails(codes.OK))
	const allowed, closed, opened = 30, breaker.Closed, breaker.Open
	for name, c := range map[string]struct {
		err     error
		counted bool // as success or failure
		want    breaker.State
	}{
		"nothing":                     {nil, true, closed},
		"NOT_FOUND":                   {status.Error(codes.NotFound, ""), true, closed},
		"INVALID_ARGUMENT":            {status.Error(codes.InvalidArgument, ""), true, closed},
		"UNIMPLEMENTED":               {status.Error(codes.Unimplemented, ""), true, closed},
		"UNKNOWN":                     {status.Error(codes.Unknown, ""), true, closed},
		"DATA_LOSS":                   {status.Error(codes.DataLoss, ""), true, closed},
		"UNAVAILABLE":                 {status.Error(codes.Unavailable, ""), true, opened},
		"INTERNAL":                    {status.Error(codes.Internal, ""), true, opened},
		"DEADLINE_EXCEEDED":           {status.Error(codes.DeadlineExceeded, ""), true, opened},
		"wrapped":                     {fmt.Errorf("x: %w", status.Error(codes.Unavailable, "")), true, opened},
		"UNAVAILABLE of others":       {detailed(codes.Unavailable, "example.com"), true, opened},
		"UNAVAILABLE of a far gate":   {detailed(codes.Unavailable, "weir"), false, closed},
		"the caller's share far away": {detailed(codes.ResourceExhausted, "weir"), false, closed},
		"waited too long far away":    {detailed(codes.DeadlineExceeded, "weir"), false, closed},
		"RESOURCE_EXHAUSTED":          {status.Error(codes.ResourceExhausted, ""), false, closed},
		"CANCELED":                    {status.Error(codes.Canceled, ""), false, closed},
		"without a status":            {errors.New("x"), false, closed},
		"our gate":                    {local, false, closed},
		"our refusal":                 {fmt.Errorf("x: %w", admit.ErrRefused), false, closed},
	} {
		t.Run(name, func(t *testing.T) {
			end := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return c.err }
			b := newBreaker(t, breaker.Config{MinCalls: allowed})
			if err := through(t.Context(), b, allowed, end); !errors.Is(err, c.err) {
				t.Errorf("error: got %v, want %v unchanged", err, c.err)
			}
			wantState(t, b, c.want)
			if c.want == closed {
				few, enough := allowed-1, 1 // all of those that count fail, and then they are enough
				if c.counted {
					few, enough = allowed, 30 // a half is not above a half; two thirds of 90 are
				}
				_ = through(t.Context(), b, few, fails(codes.Unavailable))
				wantState(t, b, closed)
				_ = through(t.Context(), b, enough, fails(codes.Unavailable))
				wantState(t, b, opened)
				return
			}
			if got := circuit(t, b); !c.counted || got.Failed != allowed {
				t.Errorf("circuit: got %+v, want %d failed", got, allowed)
			}
		})
	}
}

// Excluded calls are no calls: they do not make up the number it takes.
func TestBreakerExcludedDoNotDilute(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	_ = through(t.Context(), b, 1000, fails(codes.Canceled))
	_ = through(t.Context(), b, 19, fails(codes.Unavailable))
	wantState(t, b, breaker.Closed)
	_ = through(t.Context(), b, 1, fails(codes.Unavailable))
	wantState(t, b, breaker.Open)
}

// A deadline that passes after the caller has cancelled is the caller's doing, and
// so is one that has passed before the call.
func TestBreakerCallersEnd(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		_ = breaker.Unary(b)(ctx, work, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				cancel()
				return status.Error(codes.DeadlineExceeded, "")
			})
		late, cancel := context.WithTimeout(t.Context(), -1)
		_ = through(late, b, 1, fails(codes.DeadlineExceeded))
		cancel()
	}
	if got := circuit(t, b); got.State != breaker.Closed || got.Failed != 0 || got.Allowed != 100 {
		t.Errorf("circuit: got %+v, want it closed, 100 allowed, none failed", got)
	}
}

func TestBreakerRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t)
		time.Sleep(2 * time.Second)
		err := through(t.Context(), b, 1, fails(codes.OK))
		wantCode(t, err, codes.Unavailable)
		if !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("errors.Is(%v, ErrOpen): got false, want true", err)
		}
		wantDetails(t, err, "CIRCUIT_OPEN", 3*time.Second, 3300*time.Millisecond)
		if n := testing.AllocsPerRun(100, func() { _ = through(t.Context(), b, 1, fails(codes.OK)) }); n > 3 {
			t.Errorf("allocations of a refusal: got %v, want at most 3 (of the test's own)", n)
		}
	})
}

// A call that takes longer than the window counts when it ends.
func TestBreakerCountsCallsLongerThanWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Window: time.Second})
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				_ = through(t.Context(), b, 1, func(ctx context.Context, m string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
					time.Sleep(30 * time.Second)
					return status.Error(codes.DeadlineExceeded, "")
				})
			})
		}
		calls.Wait()
		wantState(t, b, breaker.Open)
	})
}

// What is older than the window does not count.
func TestBreakerWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for range 30 { // 19 failures in any 10 s
			_ = through(t.Context(), b, 19, fails(codes.Unavailable))
			time.Sleep(10 * time.Second)
		}
		wantState(t, b, breaker.Closed)
	})
}

// Circuits open for a different time each time, within bounds.
func TestBreakerJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := breaker.New(breaker.Config{Probes: 1})
		if err != nil {
			t.Fatal(err)
		}
		_ = through(t.Context(), b, 20, fails(codes.Unavailable))
		seen := map[time.Duration]bool{}
		for range 50 {
			began := time.Now()
			for errors.Is(through(t.Context(), b, 1, fails(codes.Unavailable)), breaker.ErrOpen) {
				time.Sleep(10 * time.Millisecond)
			}
			d := time.Since(began)
			if d < 2500*time.Millisecond || d > 7510*time.Millisecond {
				t.Errorf("open for: got %v, want 2.5s to 7.5s", d)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("different times of 50: got %d, want 10 or more", len(seen))
		}
	})
}

// hanging starts n calls that end when release is closed, with err.
func hanging(t *testing.T, b *breaker.Breaker, n int, err error) (release func()) {
	t.Helper()
	ch := make(chan struct{})
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			_ = through(t.Context(), b, 1, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				<-ch
				return err
			})
		})
	}
	synctest.Wait()
	return func() {
		close(ch)
		calls.Wait()
	}
}

// However many calls come at once, only Probes of them go out.
func TestBreakerProbesAreBounded(t *testing.T) {
	for _, c := range []struct {
		err  error
		want breaker.State
	}{
		{nil, breaker.Closed},
		{status.Error(codes.Unavailable, ""), breaker.Open},
		{status.Error(codes.Canceled, ""), breaker.HalfOpen},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := open(t)
			time.Sleep(5 * time.Second)
			before := circuit(t, b)
			release := hanging(t, b, 100, c.err)
			after := circuit(t, b)
			if a, r := after.Allowed-before.Allowed, after.Refused-before.Refused; a != 3 || r != 97 {
				t.Errorf("probes of 100 calls: got %d and %d refused, want 3 and 97", a, r)
			}
			release()
			wantState(t, b, c.want)
		})
	}
}

// Probes that are cancelled, panic or end their goroutine give their place back.
func TestBreakerLeaksNoProbe(t *testing.T) {
	for name, end := range map[string]grpc.UnaryInvoker{
		"excluded": fails(codes.Canceled),
		"panic":    func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { panic("x") },
		"Goexit": func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			runtime.Goexit()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t)
				time.Sleep(5 * time.Second)
				for range 10 {
					aside(func() { _ = through(t.Context(), b, 1, end) })
					aside(func() { _ = openStream(t.Context(), b, end) })
				}
				if s := circuit(t, b); s.State != breaker.HalfOpen || s.Allowed != 40 || s.Refused != 0 {
					t.Errorf("circuit: got %+v, want it half-open, 40 allowed, none refused", s)
				}
				_ = through(t.Context(), b, 3, fails(codes.OK))
				wantState(t, b, breaker.Closed)
			})
		})
	}
}

// openStream opens a stream with a streamer that ends as the invoker does.
func openStream(ctx context.Context, b *breaker.Breaker, end grpc.UnaryInvoker) error {
	_, err := breaker.Stream(b)(ctx, &grpc.StreamDesc{ServerStreams: true}, nil, work,
		func(ctx context.Context, _ *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if err := end(ctx, method, nil, nil, cc, opts...); err != nil {
				return nil, err
			}
			return &deaf{}, nil
		})
	return err
}

// Probes that hang let others go, and count when they end after all.
func TestBreakerHangingProbes(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want breaker.State
	}{
		{"well", nil, breaker.Closed},
		{"unwell", status.Error(codes.Unavailable, ""), breaker.Open},
		{"excluded", status.Error(codes.Canceled, ""), breaker.HalfOpen},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t)
				time.Sleep(5 * time.Second)
				release := hanging(t, b, 3, c.err)
				time.Sleep(5*time.Second - 1)
				if err := through(t.Context(), b, 1, fails(codes.OK)); !errors.Is(err, breaker.ErrOpen) {
					t.Errorf("fourth probe: got %v, want ErrOpen", err)
				}
				time.Sleep(time.Nanosecond)
				hold := hanging(t, b, 4, status.Error(codes.Canceled, ""))
				if got := circuit(t, b).Allowed; got != 26 {
					t.Errorf("allowed: got %d, want 20 and twice three probes", got)
				}
				release()                   // those that are late
				if c.want != breaker.Open { // it waits for the younger ones
					wantState(t, b, c.want)
				}
				hold()
				wantState(t, b, c.want)
				if c.want == breaker.HalfOpen {
					_ = through(t.Context(), b, 3, fails(codes.OK))
					wantState(t, b, breaker.Closed)
				}
			})
		})
	}
}

// Calls from before a change of state say nothing about what is now.
func TestBreakerLateCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		release := hanging(t, b, 50, status.Error(codes.Unavailable, ""))
		_ = through(t.Context(), b, 20, fails(codes.Unavailable))
		wantState(t, b, breaker.Closed) // the others may still go well
		time.Sleep(time.Second)
		_ = through(t.Context(), b, 1, fails(codes.Unavailable))
		wantState(t, b, breaker.Open)
		time.Sleep(5 * time.Second)
		_ = through(t.Context(), b, 3, fails(codes.OK))
		wantState(t, b, breaker.Closed)
		release()
		wantState(t, b, breaker.Closed)
	})
}

func TestBreakerHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		var panics []any
		var b *breaker.Breaker
		note := func(target, method string, from, to breaker.State) {
			got = append(got, fmt.Sprintf("%s %s %v %v", target, method, from, to))
			_ = b.Stats()                                         // no lock is held
			_ = through(t.Context(), b, 1, fails(codes.NotFound)) // not even for calls
		}
		b = newBreaker(t, breaker.Config{},
			breaker.WithHooks(breaker.Hooks{
				StateChanged: func(string, string, breaker.State, breaker.State) { panic("hook") },
				Panicked:     func(any) { panic("again") },
			}),
			breaker.WithHooks(breaker.Hooks{}),
			breaker.WithHooks(breaker.Hooks{StateChanged: note, Panicked: func(v any) { panics = append(panics, v) }}),
			breaker.WithHooks(breaker.Hooks{
				StateChanged: func(_, _ string, _, to breaker.State) {
					if to == breaker.HalfOpen {
						runtime.Goexit()
					}
				},
			}),
		)
		_ = through(t.Context(), b, 20, fails(codes.Unavailable))
		time.Sleep(5 * time.Second)
		aside(func() { _ = through(t.Context(), b, 1, fails(codes.OK)) }) // ended by the hook, without a leak
		_ = through(t.Context(), b, 3, fails(codes.OK))
		wantState(t, b, breaker.Closed)
		want := []string{
			" " + work + " closed open",
			" " + work + " open half-open",
			" " + work + " half-open closed",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") || len(panics) != 3 {
			t.Errorf("changes: got %q and %d panics, want %q and 3", got, len(panics), want)
		}
	})
}

// A hook that ends the goroutine leaks no probe.
func TestBreakerHookGoexit(t *testing.T) {
	for name, call := range map[string]func(context.Context, *breaker.Breaker) error{
		"unary":  func(ctx context.Context, b *breaker.Breaker) error { return through(ctx, b, 1, fails(codes.OK)) },
		"stream": func(ctx context.Context, b *breaker.Breaker) error { return openStream(ctx, b, fails(codes.OK)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, breaker.WithHooks(breaker.Hooks{
					StateChanged: func(_, _ string, _, to breaker.State) {
						if to == breaker.HalfOpen {
							runtime.Goexit()
						}
					},
				}))
				time.Sleep(5 * time.Second)
				aside(func() { _ = call(t.Context(), b) })
				_ = through(t.Context(), b, 3, fails(codes.OK))
				wantState(t, b, breaker.Closed)
			})
		})
	}
}

// A change that a hook brings about comes after the one of which it is told, for the
// other hooks, too.
func TestBreakerHooksInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []breaker.State
		var b *breaker.Breaker
		b = newBreaker(t, breaker.Config{},
			breaker.WithHooks(breaker.Hooks{
				StateChanged: func(_, _ string, _, to breaker.State) {
					if to == breaker.HalfOpen {
						_ = through(t.Context(), b, 2, fails(codes.Unavailable))
						time.Sleep(time.Second) // the call that brought it about is still under way
					}
				},
			}),
			breaker.WithHooks(breaker.Hooks{
				StateChanged: func(_, _ string, _, to breaker.State) { got = append(got, to) },
			}),
		)
		_ = through(t.Context(), b, 20, fails(codes.Unavailable))
		time.Sleep(5 * time.Second)
		_ = through(t.Context(), b, 1, fails(codes.OK))
		want := []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Open}
		if !slices.Equal(got, want) {
			t.Errorf("changes: got %v, want %v", got, want)
		}
	})
}

// Probes of a half-open time that is over are forgotten.
func TestBreakerProbesOfAnotherTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t)
		time.Sleep(5 * time.Second)
		first := hanging(t, b, 1, status.Error(codes.Canceled, ""))
		time.Sleep(time.Second)
		_ = through(t.Context(), b, 2, fails(codes.Unavailable))
		wantState(t, b, breaker.Open)
		time.Sleep(5 * time.Second)
		second := hanging(t, b, 3, nil)
		time.Sleep(5 * time.Second)
		before := circuit(t, b).Allowed
		third := hanging(t, b, 4, nil)
		if got := circuit(t, b).Allowed - before; got != 3 {
			t.Errorf("probes let go in place of those that hang: got %d, want 3", got)
		}
		first()
		wantState(t, b, breaker.HalfOpen)
		second()
		wantState(t, b, breaker.Closed)
		third()
	})
}

// A stream that is refused at once has no headers: to have asked for them is no answer.
func TestBreakerStreamWithoutHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{MinCalls: 1})
		r := start(t, &service{OnExchange: func(demopb.DemoService_ExchangeServer) error {
			return status.Error(codes.Unavailable, "")
		}}, nil, breakerDial(b)...)
		for range 3 { // two of them are probes
			s, err := r.Exchange(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if md, err := s.Header(); md != nil || err != nil {
				t.Errorf("headers: got %v and %v, want none", md, err)
			}
			_, err = s.Recv()
			wantCode(t, err, codes.Unavailable)
			time.Sleep(5 * time.Second)
		}
		if got := circuit(t, b); got.State != breaker.Open || got.Opened != 2 || got.Failed != 3 {
			t.Errorf("circuit: got %+v, want it opened twice by 3 failures", got)
		}
	})
}

// Different spellings of one target share a circuit.
func TestBreakerCanonicalTarget(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	for _, target := range []string{"example.com:1", "dns:///example.com:1", "example.com:1"} {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		_ = breaker.Unary(b)(t.Context(), work, nil, nil, conn, fails(codes.OK))
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := circuit(t, b); got.Target != "dns:///example.com:1" || got.Allowed != 3 {
		t.Errorf("circuit: got %+v, want 3 calls to dns:///example.com:1", got)
	}
}

// What a gate of this process refused is no call, whatever the user's function says.
func TestBreakerWithVerdictNotOfOurs(t *testing.T) {
	gate := strict(t, 1)
	fill(t, gate)
	b := newBreaker(t, breaker.Config{}, breaker.WithVerdict(func(error) breaker.Verdict {
		return breaker.Unwell
	}))
	_ = through(t.Context(), b, 100, func(
		ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption,
	) error {
		return interceptors.UnaryClient(gate)(ctx, m, req, reply, cc, fails(codes.OK), opts...)
	})
	wantState(t, b, breaker.Closed)
}

func TestBreakerWithVerdict(t *testing.T) {
	b := newBreaker(t, breaker.Config{}, breaker.WithVerdict(func(err error) breaker.Verdict {
		switch status.Code(err) {
		case codes.NotFound:
			return breaker.Unwell
		case codes.Aborted:
			panic("x")
		case codes.Canceled:
			return breaker.Excluded
		default:
			return breaker.Healthy
		}
	}))
	_ = through(t.Context(), b, 100, fails(codes.Aborted))
	_ = through(t.Context(), b, 19, fails(codes.NotFound))
	_ = through(t.Context(), b, 19, fails(codes.Unavailable))
	wantState(t, b, breaker.Closed)
	_ = through(t.Context(), b, 20, fails(codes.NotFound)) // two thirds of 58
	wantState(t, b, breaker.Open)
}

// Streams over a network: which ends count, and that a long one gives its probe back.
func TestBreakerStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{MinCalls: 10, FailureRatio: 0.2}) // none of 3 probes may fail
		var say error
		stay := false
		svc := &service{OnExchange: func(s demopb.DemoService_ExchangeServer) error {
			if !stay {
				return say
			}
			if _, err := s.Recv(); err != nil {
				return err
			}
			if err := s.Send(&demopb.ExchangeResponse{}); err != nil {
				return err
			}
			<-s.Context().Done()
			return status.FromContextError(s.Context().Err()).Err()
		}}
		r := start(t, svc, nil, breakerDial(b)...)
		end := func() {
			if err := drainStream(t.Context(), r); status.Code(err) != status.Code(say) {
				t.Errorf("stream: got %v, want %v", err, say)
			}
		}
		for range 9 {
			end()
		}
		wantState(t, b, breaker.Closed)
		say = status.Error(codes.Unavailable, "")
		for circuit(t, b).State == breaker.Closed && circuit(t, b).Failed < 30 {
			end()
		}
		say = nil
		wantState(t, b, breaker.Open)
		if got := circuit(t, b); got.Failed != 7 || got.Allowed != 16 {
			t.Errorf("circuit: got %+v, want it open after 7 failures of 16", got)
		}

		time.Sleep(5 * time.Second)
		stay = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for i := range 3 { // three that stay open
			s, err := r.Exchange(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if _, err := r.Exchange(ctx); err != nil { // with neither a message nor headers it is still a probe
					t.Fatal(err)
				}
			}
			if err := s.Send(&demopb.ExchangeRequest{}); err != nil {
				t.Fatal(err)
			}
			if i != 1 {
				_, err = s.Recv()
			} else {
				_, err = s.Header()
			}
			if err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				wantState(t, b, breaker.HalfOpen)
				time.Sleep(5 * time.Second) // then the silent one's place is free
			}
		}
		wantState(t, b, breaker.Closed)
		time.Sleep(2 * time.Hour) // all streams reach their deadline; the silent one was never answered
		if got := circuit(t, b); got.State != breaker.Closed || got.Failed != 8 {
			t.Errorf("circuit: got %+v, want it closed and 8 failed", got)
		}
	})
}

// A stream that was answered was to last until its deadline; one that was not hangs.
func TestBreakerStreamDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		r := start(t, &service{OnExchange: func(s demopb.DemoService_ExchangeServer) error {
			if md, _ := metadata.FromIncomingContext(s.Context()); len(md["answer"]) > 0 {
				if err := s.SendHeader(metadata.MD{}); err != nil {
					return err
				}
			}
			<-s.Context().Done()
			return status.FromContextError(s.Context().Err()).Err()
		}}, nil, breakerDial(b)...)
		for _, c := range []struct {
			kv   []string
			want uint64
		}{{[]string{"answer", "1"}, 0}, {nil, 1}} {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), c.kv...), time.Second)
			s, err := r.Exchange(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Header()
			_, err = s.Recv()
			wantCode(t, err, codes.DeadlineExceeded)
			cancel()
			if got := circuit(t, b).Failed; got != c.want {
				t.Errorf("failed: got %d, want %d", got, c.want)
			}
		}
	})
}

// Each target and each method has a circuit; beyond a number they share one.
func TestBreakerCircuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{MinCalls: 1})
		r := start(t, &service{OnWork: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			return nil, status.Error(codes.Unavailable, "")
		}, OnExchange: func(demopb.DemoService_ExchangeServer) error { return nil }}, nil, breakerDial(b)...)
		_, _ = r.Work(t.Context(), &demopb.WorkRequest{})
		if err := drainStream(t.Context(), r); err != nil {
			t.Error(err)
		}
		s := b.Stats()
		if len(s) != 2 || s[0].Target != r.Conn.CanonicalTarget() || s[0].Method == s[1].Method ||
			s[0].State == s[1].State {
			t.Errorf("circuits: got %+v, want two of %s, one open", s, r.Conn.CanonicalTarget())
		}
		for i := range 2 * breaker.TableSize {
			_ = breaker.Unary(b)(t.Context(), fmt.Sprint("/s/", i), nil, nil, nil, fails(codes.NotFound))
		}
		shared := breaker.CircuitStats{}
		s = b.Stats()
		for _, c := range s {
			if c.Method == "*" {
				shared = c
			}
		}
		if want := breaker.TableSize + 1; len(s) != want || shared.Allowed != breaker.TableSize+2 {
			t.Errorf("circuits: got %d and the shared one %+v, want %d and %d allowed", len(s), shared, want, breaker.TableSize+2)
		}
	})
}

// Names that are not valid UTF-8 cannot be labels; a program that forwards calls may
// get them from anybody. The canonical form of a target is unescaped.
func TestBreakerNamesThatAreNotText(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	for _, method := range []string{"/a\xff/x", "/a\xfe/x", "/a\xff/x"} {
		_ = breaker.Unary(b)(t.Context(), method, nil, nil, nil, fails(codes.OK))
	}
	cc, err := grpc.NewClient("passthrough:///a%ff", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }() // it was never connected
	_ = breaker.Unary(b)(t.Context(), work, nil, nil, cc, fails(codes.OK))
	if got := circuit(t, b); got.Target != "*" || got.Method != "*" || got.Allowed != 4 {
		t.Errorf("circuit: got %+v, want the shared one with 4 calls", got)
	}
}

// Names that are not text, and other spellings of a target, take no place from others.
func TestBreakerCircuitsAreNotUsedUp(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	call := func(target, method string) {
		cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cc.Close() }() // it was never connected
		_ = breaker.Unary(b)(t.Context(), method, nil, nil, cc, fails(codes.OK))
	}
	for i := range breaker.TableSize {
		call("localhost:1", fmt.Sprint("/a.B/\xff", i))
	}
	for i := range breaker.TableSize {
		call("localhost:1", fmt.Sprint("/a.B/", i))
		call("dns:///localhost:1", fmt.Sprint("/a.B/", i))
	}
	all := b.Stats()
	if len(all) != breaker.TableSize+1 {
		t.Fatalf("circuits: got %d, want %d and the shared one", len(all), breaker.TableSize)
	}
	for _, s := range all {
		if want := uint64(2); s.Method != "*" && s.Allowed != want {
			t.Errorf("circuit: got %+v, want %d allowed", s, want)
		}
	}
}

// A circuit opens when enough calls fail, and again when a probe does.
func TestBreakerOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for want, step := range []struct {
			calls int
			code  codes.Code
		}{{19, codes.Unavailable}, {1, codes.Unavailable}, {2, codes.Unavailable}, {3, codes.OK}} {
			_ = through(t.Context(), b, step.calls, fails(step.code))
			if want = min(want, 2); circuit(t, b).Opened != uint64(want) {
				t.Errorf("after %d calls with %v: got %+v, want it opened %d times", step.calls, step.code, circuit(t, b), want)
			}
			time.Sleep(5 * time.Second)
		}
		wantState(t, b, breaker.Closed)
	})
}

func TestBreakerBadConfig(t *testing.T) {
	_, err := breaker.New(breaker.Config{
		Window: -1, MinCalls: -2, FailureRatio: 1.5, SlowCall: -3, OpenFor: 2 * time.Hour, Probes: 1001,
	}, breaker.WithVerdict(nil), nil)
	wantConfigError(t, err, "Window: got -1ns", "MinCalls: got -2", "FailureRatio: got 1.5, want", "SlowCall: got -3ns",
		"OpenFor: got 2h0m0s, want 1ms to 1h0m0s", "Probes: got 1001, want 1 to 1000", "option 1: got nil")
}

// A nil and a zero breaker are none.
func TestNoBreaker(t *testing.T) {
	for name, b := range map[string]*breaker.Breaker{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			for range 100 {
				wantCode(t, through(t.Context(), b, 1, fails(codes.Unavailable)), codes.Unavailable)
				wantCode(t, openStream(t.Context(), b, fails(codes.Unavailable)), codes.Unavailable)
			}
			wantCode(t, through(t.Context(), b, 1, fails(codes.OK)), codes.OK)
			wantCode(t, openStream(t.Context(), b, fails(codes.OK)), codes.OK)
			if got := b.Stats(); got != nil || b.Name() != "" {
				t.Errorf("stats and name: got %v and %q, want none", got, b.Name())
			}
		})
	}
}

func TestBreakerNames(t *testing.T) {
	b := newBreaker(t, breaker.Config{Name: "backends"})
	if b.Name() != "backends" || newBreaker(t, breaker.Config{}).Name() != "default" {
		t.Errorf("names: got %q and %q, want backends and default", b.Name(), newBreaker(t, breaker.Config{}).Name())
	}
	if got := fmt.Sprint(breaker.Closed, breaker.HalfOpen, breaker.Open, breaker.State(9)); got !=
		"closed half-open open State(9)" {
		t.Errorf("states: got %s", got)
	}
}

// Many goroutines on one circuit that opens and closes all the time.
func TestBreakerConcurrently(t *testing.T) {
	b := newBreaker(t, breaker.Config{MinCalls: 5, OpenFor: time.Millisecond, Window: 10 * time.Millisecond})
	var calls sync.WaitGroup
	for i := range 8 {
		calls.Go(func() {
			for j := range 3000 {
				_ = through(t.Context(), b, 1, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					runtime.Gosched()
					if (i+j)%3 == 0 {
						return nil
					}
					return status.Error(codes.Unavailable, "")
				})
			}
		})
	}
	calls.Wait()
	s := circuit(t, b)
	if s.Allowed+s.Refused != 24000 || s.Failed == 0 || s.Refused == 0 {
		t.Errorf("circuit: got %+v, want 24000 calls, some failed and some refused", s)
	}
}

func BenchmarkUnaryBreaker(b *testing.B) {
	for name, code := range map[string]codes.Code{"Closed": codes.OK, "Open": codes.Unavailable} {
		b.Run(name, func(b *testing.B) {
			circuits := newBreaker(b, breaker.Config{OpenFor: time.Hour})
			call, invoker := breaker.Unary(circuits), fails(code)
			_ = through(b.Context(), circuits, 100, invoker)
			b.ReportAllocs()
			for b.Loop() {
				_ = call(b.Context(), work, nil, nil, nil, invoker)
			}
		})
	}
}
