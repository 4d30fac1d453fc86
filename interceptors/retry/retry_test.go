package retry_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
)

func TestServiceConfig(t *testing.T) {
	for name, c := range map[string]struct {
		config retry.Config
		want   string
	}{
		"defaults": {
			want: `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.05s","maxBackoff":"1s",` +
				`"backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}],"retryThrottling":{"maxTokens":50,"tokenRatio":0.1}}`,
		},
		"all": {
			config: retry.Config{
				MaxAttempts: 5, InitialBackoff: 1234567 * time.Nanosecond, MaxBackoff: time.Hour, Multiplier: 1.5,
				Codes: []codes.Code{codes.Canceled, codes.ResourceExhausted, codes.DataLoss}, BudgetTokens: 1000, BudgetRatio: 0.001,
				Methods: []string{work}, Services: []string{"a.B"},
			},
			want: `{"methodConfig":[{"name":[{"service":"weir.demo.v1.DemoService","method":"Work"},{"service":"a.B"}],` +
				`"retryPolicy":{"maxAttempts":5,"initialBackoff":"0.001234567s","maxBackoff":"3600s","backoffMultiplier":1.5,` +
				`"retryableStatusCodes":["CANCELLED","RESOURCE_EXHAUSTED","DATA_LOSS"]}}],` +
				`"retryThrottling":{"maxTokens":1000,"tokenRatio":0.001}}`,
		},
		"a balancer": {
			config: retry.Config{Balancer: "round_robin"},
			want: `{"loadBalancingConfig":[{"round_robin":{}}],"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.05s",` +
				`"maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}],"retryThrottling":{"maxTokens":50,"tokenRatio":0.1}}`,
		},
		"a long first backoff": {
			config: retry.Config{InitialBackoff: time.Minute},
			want: `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"60s","maxBackoff":"60s",` +
				`"backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}],"retryThrottling":{"maxTokens":50,"tokenRatio":0.1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.config.ServiceConfig()
			if err != nil || got != c.want {
				t.Errorf("service config: got %s and %v, want %s", got, err, c.want)
			}
			dial(t, c.config) // gRPC refuses to dial with a config that it cannot read
		})
	}
}

// dial makes a client with the policy, of nothing.
func dial(t *testing.T, c retry.Config) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()), policy(t, c))
	if err != nil {
		t.Errorf("dial: got %v, want no error", err)
		return
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// Every code that may be retried has a name that gRPC knows.
func TestServiceConfigCodes(t *testing.T) {
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		dial(t, retry.Config{Codes: []codes.Code{c}})
	}
}

// Every duration that is accepted makes a policy that gRPC accepts, of the same length.
func TestServiceConfigDurations(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := time.Duration(rapid.Int64Range(int64(time.Microsecond), int64(time.Hour)).Draw(rt, "duration"))
		config, err := retry.Config{InitialBackoff: d, MaxBackoff: d}.ServiceConfig()
		if err != nil {
			rt.Fatal(err)
		}
		conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(config))
		if err != nil {
			rt.Fatalf("%v: got %v, want no error", d, err)
		}
		if err := conn.Close(); err != nil {
			rt.Error(err)
		}
		_, written, _ := strings.Cut(config, `"initialBackoff":"`)
		written, _, _ = strings.Cut(written, `"`)
		if got, err := time.ParseDuration(written); err != nil || got != d {
			rt.Errorf("InitialBackoff: got %v (%v), want %v", got, err, d)
		}
	})
}

// The smallest budget that is accepted allows a retry.
func TestSmallestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flaky{fail: 1, code: codes.Unavailable}
		r := start(t, f.service(), nil, policy(t, retry.Config{BudgetTokens: 3}))
		if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil || len(f.at) != 2 {
			t.Errorf("BudgetTokens 3: got %v after %d attempts, want no error after 2", err, len(f.at))
		}
		_, err := retry.Config{BudgetTokens: 2}.ServiceConfig()
		wantConfigError(t, err, "BudgetTokens: got 2, want 3")
	})
}

// policy returns a dial option with a policy.
func policy(tb testing.TB, c retry.Config) grpc.DialOption {
	tb.Helper()
	o, err := retry.DialOption(c)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func TestRetryConfigBad(t *testing.T) {
	_, err := retry.DialOption(retry.Config{
		MaxAttempts: 6, InitialBackoff: 2 * time.Second, MaxBackoff: time.Second, Multiplier: math.NaN(),
		Codes: []codes.Code{codes.OK, 99, codes.Aborted, codes.Aborted}, BudgetTokens: 1001, BudgetRatio: 0.0001,
		Methods:  []string{"Work", "/a/b/c", "/a/", "//b", "/a/b", "/a/b", "/a/*", "/a/b c"},
		Services: []string{"", "/a/b", "a", "a", "*", "b\xff"}, Balancer: "no_such_policy",
	})
	wantConfigError(t, err,
		"MaxAttempts: got 6, want 2 to 5", "MaxBackoff: got 1s, want InitialBackoff (2s) to 1h0m0s", "Multiplier: got NaN",
		"Codes: got OK (0)", "Codes: got Code(99) (99)", "Codes: got Aborted twice", "BudgetTokens: got 1001, want 3 to 1000",
		"BudgetRatio: got 0.0001, want 0.001 to 1000", `Methods: got "Work"`, `Methods: got "/a/b/c"`, `Methods: got "/a/"`,
		`Methods: got "//b"`, `Methods: got "/a/b" twice`, `Services: got ""`, `Services: got "/a/b"`, `Services: got "a" twice`,
		`Methods: got "/a/*"`, `Methods: got "/a/b c"`, `Services: got "*"`, `Services: got "b\xff"`, `Balancer: got "no_such_policy", want the name of a policy`)
	_, err = retry.Config{MaxAttempts: 1, InitialBackoff: -1}.ServiceConfig()
	wantConfigError(t, err, "MaxAttempts: got 1", "InitialBackoff: got -1ns")
}

// A flaky service fails the first calls that it gets, and notes when they came and
// what they said of earlier attempts.
type flaky struct {
	fail     int
	code     codes.Code
	pushback string

	at       []time.Time
	previous []int
}

func (f *flaky) service() *service {
	return &service{OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		f.at = append(f.at, time.Now())
		f.previous = append(f.previous, retry.PreviousAttempts(ctx))
		if len(f.at) > f.fail {
			return &demopb.WorkResponse{}, nil
		}
		if f.pushback != "" {
			if err := grpc.SetTrailer(ctx, metadata.Pairs(pushback, f.pushback)); err != nil {
				return nil, err
			}
		}
		return nil, status.Error(f.code, "flaky")
	}}
}

func TestRetryPolicy(t *testing.T) {
	for _, c := range []struct {
		name     string
		config   retry.Config
		flaky    flaky
		attempts int
		want     codes.Code
		least    time.Duration // from the first attempt to the second
		most     time.Duration
	}{
		{"recovers", retry.Config{}, flaky{fail: 2, code: codes.Unavailable}, 3, codes.OK, 40e6, 60e6},
		{"does not", retry.Config{}, flaky{fail: 9, code: codes.Unavailable}, 3, codes.Unavailable, 40e6, 60e6},
		{"five times", retry.Config{MaxAttempts: 5, BudgetTokens: 100}, flaky{fail: 9, code: codes.Unavailable}, 5, codes.Unavailable, 40e6, 60e6},
		{"its own backoff", retry.Config{InitialBackoff: time.Minute}, flaky{fail: 1, code: codes.Unavailable}, 2, codes.OK, 48e9, 72e9},
		{"another code", retry.Config{}, flaky{fail: 9, code: codes.Internal}, 1, codes.Internal, 0, 0},
		{"a chosen code", retry.Config{Codes: []codes.Code{codes.Internal}}, flaky{fail: 1, code: codes.Internal}, 2, codes.OK, 40e6, 60e6},
		{"this method", retry.Config{Methods: []string{work}}, flaky{fail: 1, code: codes.Unavailable}, 2, codes.OK, 40e6, 60e6},
		{"this service", retry.Config{Services: []string{"weir.demo.v1.DemoService"}}, flaky{fail: 1, code: codes.Unavailable}, 2, codes.OK, 40e6, 60e6},
		{"another method", retry.Config{Methods: []string{"/a/b"}}, flaky{fail: 1, code: codes.Unavailable}, 1, codes.Unavailable, 0, 0},
		{"pushback", retry.Config{}, flaky{fail: 1, code: codes.Unavailable, pushback: "7000"}, 2, codes.OK, 7e9, 7e9},
		{"pushback forbids", retry.Config{}, flaky{fail: 1, code: codes.Unavailable, pushback: "-1"}, 1, codes.Unavailable, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, c.flaky.service(), nil, policy(t, c.config))
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				wantCode(t, err, c.want)
				want := []int{0, 1, 2, 3, 4}[:c.attempts]
				if !slices.Equal(c.flaky.previous, want) {
					t.Fatalf("previous attempts: got %v, want %v", c.flaky.previous, want)
				}
				if c.attempts == 1 {
					return
				}
				if d := c.flaky.at[1].Sub(c.flaky.at[0]); d < c.least || d > c.most {
					t.Errorf("delay of the second attempt: got %v, want %v to %v", d, c.least, c.most)
				}
			})
		})
	}
}

// In a total outage the budget bounds the retries, not their share; when it is over
// they come back.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flaky{fail: math.MaxInt, code: codes.Unavailable}
		r := start(t, f.service(), nil, policy(t, retry.Config{}))
		call := func(n int) {
			for range n {
				_, _ = r.Work(t.Context(), &demopb.WorkRequest{})
			}
		}
		call(200)
		if got := len(f.at); got < 201 || got > 225 {
			t.Errorf("attempts of 200 calls: got %d, want 201 to 225: half of the budget of 50 is for retries", got)
		}
		f.fail = 0
		call(500) // which fill the budget again
		f.at, f.fail = nil, 1
		call(1)
		if len(f.at) != 2 {
			t.Errorf("attempts after the outage: got %d, want 2", len(f.at))
		}
	})
}

func TestPreviousAttempts(t *testing.T) {
	for value, want := range map[string]int{
		"0": 0, "1": 1, "4": 4, "255": 255, "256": 0, "-1": 0, "+1": 0, "": 0, "1,1": 0, "1e2": 0, "0x1": 0, "1_0": 0,
		"99999999999999999999": 0, strings.Repeat("9", 8000): 0, "two": 0,
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("grpc-previous-rpc-attempts", value))
		if got := retry.PreviousAttempts(ctx); got != want {
			t.Errorf("PreviousAttempts of %.30q: got %d, want %d", value, got, want)
		}
	}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("grpc-previous-rpc-attempts", "1", "grpc-previous-rpc-attempts", "1"))
	if got := retry.PreviousAttempts(ctx) + retry.PreviousAttempts(t.Context()); got != 0 {
		t.Errorf("PreviousAttempts of two values, and of none: got %d, want 0", got)
	}
}

// The retry interceptor of go-grpc-middleware above a service config.
func TestRetryGuard(t *testing.T) {
	outer := middleware.UnaryClientInterceptor(middleware.WithMax(3), middleware.WithBackoff(middleware.BackoffLinear(time.Second)),
		middleware.WithCodes(codes.Unavailable, codes.Aborted))
	type chain = func(guard grpc.UnaryClientInterceptor) []grpc.UnaryClientInterceptor
	both := func(g grpc.UnaryClientInterceptor) []grpc.UnaryClientInterceptor {
		return []grpc.UnaryClientInterceptor{g, outer, g}
	}
	for _, c := range []struct {
		name     string
		chain    chain
		methods  []string // of the policy
		code     codes.Code
		attempts int // of two calls
		reports  int
	}{
		{"without", func(grpc.UnaryClientInterceptor) []grpc.UnaryClientInterceptor {
			return []grpc.UnaryClientInterceptor{outer}
		}, nil, codes.Unavailable, 18, 0},
		{"both ends", both, nil, codes.Unavailable, 6, 1},
		{"another code", both, nil, codes.Aborted, 6, 0},
		{"no policy", both, []string{"/a/b"}, codes.Unavailable, 6, 0},
		{"inner end only", func(g grpc.UnaryClientInterceptor) []grpc.UnaryClientInterceptor {
			return []grpc.UnaryClientInterceptor{outer, g}
		}, nil, codes.Unavailable, 18, 1},
		{"inner end only, no policy", func(g grpc.UnaryClientInterceptor) []grpc.UnaryClientInterceptor {
			return []grpc.UnaryClientInterceptor{outer, g}
		}, []string{"/a/b"}, codes.Unavailable, 6, 0},
		{"no retries above", func(g grpc.UnaryClientInterceptor) []grpc.UnaryClientInterceptor {
			return []grpc.UnaryClientInterceptor{g, g}
		}, nil, codes.Unavailable, 6, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports []string
				guard := retry.UnaryGuard(func(target, method string) {
					reports = append(reports, target+" "+method)
					panic("dropped")
				})
				f := flaky{fail: math.MaxInt, code: c.code}
				r := start(t, f.service(), nil, grpc.WithChainUnaryInterceptor(c.chain(guard)...),
					policy(t, retry.Config{Methods: c.methods, BudgetTokens: 1000}))
				for range 2 {
					_, err := r.Work(t.Context(), &demopb.WorkRequest{})
					wantCode(t, err, c.code)
					if !strings.Contains(err.Error(), "flaky") {
						t.Errorf("error: got %v, want the server's", err)
					}
				}
				if len(f.at) != c.attempts || len(reports) != c.reports {
					t.Errorf("two calls: got %d attempts and the reports %q, want %d and %d", len(f.at), reports, c.attempts, c.reports)
				}
				if want := r.Conn.CanonicalTarget() + " " + work; c.reports > 0 && reports[0] != want {
					t.Errorf("report: got %q, want %q", reports[0], want)
				}
			})
		})
	}
}

// A stream is opened again by gRPC only, unless a message has come.
func TestStreamRetryGuard(t *testing.T) {
	outer := middleware.StreamClientInterceptor(middleware.WithMax(3), middleware.WithBackoff(middleware.BackoffLinear(time.Second)), middleware.WithCodes(codes.Unavailable))
	const method = "/a.Service/Watch"
	for _, c := range []struct {
		name     string
		guarded  bool
		messages int // one in each of the first attempts
		attempts int
		reports  int
	}{
		{"without", false, 0, 9, 0},
		{"at both ends", true, 0, 3, 1},
		{"after a message, and again", true, 1, 4, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			reports, attempts := 0, 0
			guard := retry.StreamGuard(func(string, string) { reports++ })
			chain := []grpc.StreamClientInterceptor{outer}
			if c.guarded {
				chain = []grpc.StreamClientInterceptor{guard, outer, guard}
			}
			unknown := grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
				if attempts++; attempts <= c.messages {
					if err := s.SendMsg(&demopb.WorkResponse{}); err != nil {
						return err
					}
				}
				return status.Error(codes.Unavailable, "flaky")
			})
			r := start(t, &service{}, []grpc.ServerOption{unknown}, grpc.WithChainStreamInterceptor(chain...),
				policy(t, retry.Config{BudgetTokens: 1000}))
			s, err := r.Conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
			if err == nil {
				err = s.SendMsg(&demopb.WorkRequest{})
			}
			if err == nil {
				err = s.CloseSend()
			}
			for err == nil {
				err = s.RecvMsg(&demopb.WorkResponse{})
			}
			wantCode(t, err, codes.Unavailable)
			if attempts != c.attempts || reports != c.reports {
				t.Errorf("%s: got %d attempts and %d reports, want %d and %d", c.name, attempts, reports, c.attempts, c.reports)
			}
		})
	}
}

// Calls that something in between makes with the same context are calls of their own.
func TestRetryGuardOtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := retry.UnaryGuard(func(string, string) { t.Error("report: got one, want none") })
		attempts := 0
		unknown := grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			attempts++
			return status.Error(codes.Unavailable, "")
		})
		between := func(
			ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			if method == work {
				for range 2 {
					// After the last attempt gRPC may forget the status, and return UNKNOWN.
					if err := cc.Invoke(ctx, "/auth/Token", req, reply); err == nil {
						t.Error("/auth/Token: got no error, want one")
					}
				}
			}
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		r := start(t, &service{}, []grpc.ServerOption{unknown}, grpc.WithChainUnaryInterceptor(guard, between, guard),
			policy(t, retry.Config{BudgetTokens: 1000}))
		if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil || attempts != 6 {
			t.Errorf("call: got %v after %d attempts of two others, want nil and 6", err, attempts)
		}
	})
}

// gRPC does not retry what a gate of this process refused: others may.
func TestRetryGuardOurRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := newGate(t)
		gate.Drain()
		tries := 0
		count := func(
			ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			tries++
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		guard := retry.UnaryGuard(func(string, string) { t.Error("report: got one, want none") })
		r := start(t, &service{}, nil, policy(t, retry.Config{}), grpc.WithChainUnaryInterceptor(guard,
			middleware.UnaryClientInterceptor(middleware.WithMax(3), middleware.WithCodes(codes.Unavailable)), guard, count, interceptors.UnaryClient(gate)))
		r.Conn.Connect()
		synctest.Wait() // gRPC has its policy
		_, err := r.Work(t.Context(), &demopb.WorkRequest{})
		wantCode(t, err, codes.Unavailable)
		if tries != 3 {
			t.Errorf("tries: got %d, want 3", tries)
		}
	})
}

func TestRetryGuardWithoutReport(t *testing.T) {
	guard := retry.UnaryGuard(nil)
	err := guard(t.Context(), work, nil, nil, nil, func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption,
	) error {
		return guard(ctx, method, req, reply, cc, busy, opts...)
	})
	wantCode(t, err, codes.Unavailable)
}

// Calls that gRPC does not retry have one layer only, and that may go on.
func TestRetryGuardWhatGRPCDoesNotRetry(t *testing.T) {
	for name, c := range map[string]struct {
		headers bool
		size    int
		call    []grpc.CallOption
		both    bool // layers would retry
	}{
		"nothing":          {both: true},
		"headers":          {headers: true},
		"as large as kept": {size: 256<<10 - 20, both: true},
		"a large request":  {size: 300 << 10},
		"a larger buffer":  {size: 300 << 10, call: calls(grpc.MaxRetryRPCBufferSize(1 << 20)), both: true},
		"a smaller buffer": {size: 2000, call: calls(grpc.MaxRetryRPCBufferSize(1000))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts, reports := 0, 0
				fail := func(ctx context.Context) error {
					attempts++
					if c.headers {
						if err := grpc.SendHeader(ctx, metadata.Pairs("a", "b")); err != nil {
							return err
						}
					}
					return status.Error(codes.Unavailable, "flaky")
				}
				watch := grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
					if err := s.RecvMsg(new(demopb.WorkRequest)); err != nil {
						return err
					}
					return fail(s.Context())
				})
				guard := retry.UnaryGuard(func(string, string) { reports++ })
				streams := retry.StreamGuard(func(string, string) { reports++ })
				again := []middleware.CallOption{middleware.WithMax(3), middleware.WithBackoff(middleware.BackoffLinear(time.Second)), middleware.WithCodes(codes.Unavailable)}
				r := start(t, does(fail), []grpc.ServerOption{watch},
					grpc.WithChainUnaryInterceptor(guard, middleware.UnaryClientInterceptor(again...), guard),
					grpc.WithChainStreamInterceptor(streams, middleware.StreamClientInterceptor(again...), streams),
					policy(t, retry.Config{BudgetTokens: 1000}))
				req := &demopb.WorkRequest{Name: strings.Repeat("x", c.size)}

				_, err := r.Work(t.Context(), req, c.call...)
				wantCode(t, err, codes.Unavailable)
				if attempts != 3 {
					t.Errorf("unary: got %d attempts, want the 3 of one layer", attempts)
				}
				attempts = 0
				s, err := r.Conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/a.Service/Watch", c.call...)
				if err == nil {
					err = errors.Join(s.SendMsg(req), s.CloseSend())
				}
				if err == nil {
					err = s.RecvMsg(new(demopb.WorkResponse))
				}
				wantCode(t, err, codes.Unavailable)
				if attempts != 3 {
					t.Errorf("stream: got %d attempts, want the 3 of one layer", attempts)
				}
				if c.both && reports != 2 || !c.both && reports != 0 {
					t.Errorf("reports: got %d, want one of each method where both layers retry (%v)", reports, c.both)
				}
			})
		})
	}
}
