package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

// crew returns a service with so many workers, each of whom takes d for a call. Calls
// wait for a worker.
func crew(workers int, d time.Duration) *service {
	busy := make(chan struct{}, workers)
	return &service{OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		time.Sleep(d)
		return &demopb.WorkResponse{}, nil
	}}
}

// At twice the capacity, with a deadline of 500 ms, callers see that they were refused.
// gRPC's retries would have many of them wait for their deadline, and see nothing else.
func TestOverloadIsVisible(t *testing.T) {
	const calls = 3600
	for name, c := range map[string]struct {
		policy grpc.DialOption
		silent int // how many may fail without a word of a refusal
	}{
		"weir's policy": {policy(t, retry.Config{}), 0},
		"five attempts, without a budget": {grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {
			"retryableStatusCodes": ["UNAVAILABLE"], "maxAttempts": 5,
			"initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2}}]}`), calls / 100},
	} {
		for limit, opts := range map[string][]admit.Option{"adaptive": nil, "fixed": {admit.WithLimit(fixed(8))}} {
			t.Run(name+", "+limit, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := start(t, crew(8, 20*time.Millisecond), unaryServers(interceptors.UnaryServer(newGate(t, opts...))), c.policy)
					random := rand.New(rand.NewPCG(1, 2))
					var all sync.WaitGroup
					var mu sync.Mutex // guards the fields below
					served, refused := 0, 0
					for range calls {
						time.Sleep(time.Duration(random.ExpFloat64() * float64(time.Second/800)))
						all.Go(func() {
							ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
							defer cancel()
							_, err := r.Work(ctx, &demopb.WorkRequest{})
							mu.Lock()
							defer mu.Unlock()
							if err == nil {
								served++
							} else if r, ok := interceptors.RefusalFrom(err); ok && r.Remote {
								refused++
							}
						})
					}
					all.Wait()
					if silent := calls - served - refused; served < calls*4/10 || silent > c.silent {
						t.Errorf("%d calls: got %d served, %d refused and %d without a word, want 0.4 of them served and at most %d without a word",
							calls, served, refused, silent, c.silent)
					}
				})
			})
		}
	}
}

// One client hammers a slow method. Others, who have two seconds, are not told to come
// back after a second or later, and know when they are refused.
func TestPushbackIsBounded(t *testing.T) {
	for name, opts := range map[string][]admit.Option{
		"default": nil, "fixed": {admit.WithLimit(fixed(8))}, "no queue": {admit.WithLimit(fixed(8)), admit.WithoutQueue()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, opts...)
				r := start(t, crew(8, 200*time.Millisecond), unaryServers(interceptors.UnaryServer(g)), policy(t, retry.Config{}))
				hammer := demopb.NewDemoServiceClient(r.Conn)
				over, stop := context.WithCancel(t.Context())
				var all sync.WaitGroup
				all.Go(func() {
					for over.Err() == nil {
						time.Sleep(time.Millisecond) // 25 times what is served
						all.Go(func() { _, _ = hammer.Work(over, &demopb.WorkRequest{}) })
					}
				})
				longest := 0
				for range 50 {
					time.Sleep(100 * time.Millisecond)
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					var trailer metadata.MD
					_, err := r.Work(ctx, &demopb.WorkRequest{}, grpc.Trailer(&trailer))
					cancel()
					if _, ok := interceptors.RefusalFrom(err); err != nil && !ok {
						t.Errorf("call: got %v, want a refusal, or none", err)
					}
					for _, ms := range trailer[pushback] {
						n, err := strconv.Atoi(ms)
						if err != nil {
							t.Errorf("%s: got %q, want a number", pushback, ms)
						}
						longest = max(longest, n)
					}
				}
				if longest < 100 || longest > 1000 {
					t.Errorf("longest %s: got %d, want 100 to 1000", pushback, longest)
				}
				stop()
				all.Wait()
			})
		})
	}
}

// A call whose deadline would be near when it comes back is told not to.
func TestNoRetryBeyondTheDeadline(t *testing.T) {
	for _, draining := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := strict(t, 1)
			fill(t, g)
			if draining {
				g.Drain()
			}
			i := interceptors.UnaryServer(g)
			for range 300 {
				left := rand.N(400 * time.Millisecond)
				s := &callStream{}
				ctx, cancel := context.WithTimeout(grpc.NewContextWithServerTransportStream(t.Context(), s), left)
				_, err := i(ctx, nil, workInfo, succeed)
				cancel()
				var r *admit.Refusal
				if !errors.As(err, &r) {
					t.Fatalf("got %v, want a refusal", err)
				}
				want := "-1"
				if left >= 2*r.RetryAfter {
					want = strconv.FormatInt(r.RetryAfter.Milliseconds(), 10)
				}
				if got := s.trailer[pushback]; len(got) != 1 || got[0] != want {
					t.Errorf("%v before the deadline, a delay of %v: got %s %q, want %s", left, r.RetryAfter, pushback, got, want)
				}
			}
		})
	}
}

// gRPC sleeps for a delay that is longer than the deadline, and forgets why. A server
// that does not know the deadline asks for one.
func TestTheClientRestoresRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := strict(t, 1)
		fill(t, full)
		refuse := interceptors.UnaryServer(full)
		late := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := grpc.SetTrailer(ctx, metadata.Pairs(pushback, "2000")); err != nil {
				t.Error(err)
			}
			_, err := refuse(context.WithoutCancel(ctx), req, workInfo, h)
			return nil, err
		}
		targets := newThrottle(t, throttle.Config{})
		circuits := newBreaker(t, breaker.Config{})
		for _, c := range []struct {
			dial []grpc.DialOption
			code codes.Code
			is   bool
		}{
			{[]grpc.DialOption{policy(t, retry.Config{})}, codes.DeadlineExceeded, false},
			{standBack(t, interceptors.ClientConfig{Retry: &retry.Config{}, Throttle: targets, Breaker: circuits}), codes.Unavailable, true},
		} {
			r := start(t, &service{}, unaryServers(late), c.dial...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := r.Work(ctx, &demopb.WorkRequest{})
			cancel()
			wantCode(t, err, c.code)
			is, ok := interceptors.RefusalFrom(err)
			if ok != c.is || ok && (is.Reason != "queue_full" || !is.Remote || is.Gate != "default") {
				t.Errorf("RefusalFrom(%v): got %+v, %v, want %v, and a remote one for queue_full if so", err, is, ok, c.is)
			}
		}
		if s := targets.Stats(); len(s) != 1 || s[0].Allowed != 1 || s[0].Rejected != 1 || s[0].Accepted != 0 {
			t.Errorf("throttle: got %+v, want one call, which the target rejected", s)
		}
		if s := circuit(t, circuits); s.Failed != 0 {
			t.Errorf("breaker: got %+v, want no failure: the server is full and well", s)
		}
	})
}

// A stream that a server refuses ends with the refusal, whatever its client does first,
// and however gRPC's retries end.
func TestTheClientRestoresRefusalsOfStreams(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration
		pushback string // "" for the gate's
		send     bool
	}{
		"attempts are used up, sending":   {deadline: time.Hour, send: true},
		"attempts are used up, receiving": {deadline: time.Hour},
		"the deadline ends, sending":      {deadline: time.Second, pushback: "2000", send: true},
		"the deadline ends, receiving":    {deadline: time.Second, pushback: "2000"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				full := strict(t, 1)
				fill(t, full)
				server := grpc.StreamInterceptor(interceptors.StreamServer(full))
				if c.pushback != "" { // asked for by a server that does not see the deadline
					server = grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
						err := interceptors.StreamServer(full)(srv, &serverStream{ctx: context.WithoutCancel(ss.Context())}, info, h)
						ss.SetTrailer(metadata.Pairs(pushback, c.pushback))
						return err
					})
				}
				r := start(t, &service{}, []grpc.ServerOption{server},
					standBack(t, interceptors.ClientConfig{Retry: &retry.Config{BudgetTokens: 1000}})...)
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
					s, err := r.Exchange(ctx)
					for err == nil && c.send {
						err = s.Send(&demopb.ExchangeRequest{})
					}
					if s != nil {
						_, err = s.Recv()
					}
					cancel()
					wantCode(t, err, codes.Unavailable)
					if is, ok := interceptors.RefusalFrom(err); !ok || is.Reason != "queue_full" || !is.Remote {
						t.Fatalf("RefusalFrom(%v): got %+v, %v, want a remote one for queue_full", err, is, ok)
					}
				}
			})
		})
	}
}

// An attempt that is refused before its request is all sent loses its status in gRPC,
// now and then. What comes in its trailer may be anything.
func TestRestoredTrailers(t *testing.T) {
	g := strict(t, 1)
	fill(t, g)
	_, refusal := interceptors.UnaryServer(g)(t.Context(), nil, workInfo, succeed)
	encode := func(change func(*spb.Status)) string {
		st := status.Convert(refusal).Proto()
		change(st)
		data, err := proto.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	good := encode(func(*spb.Status) {})
	eof := fmt.Errorf("max retries exhausted: failed after 3 attempts: %w", io.EOF)
	for name, c := range map[string]struct {
		err     error
		details []string
		want    codes.Code
	}{
		"nothing lost":      {nil, []string{good}, codes.OK},
		"EOF":               {eof, []string{good}, codes.Unavailable},
		"a deadline":        {status.Error(codes.DeadlineExceeded, ""), []string{good}, codes.Unavailable},
		"another error":     {status.Error(codes.Internal, ""), []string{good}, codes.Internal},
		"a cancellation":    {status.Error(codes.Canceled, ""), []string{good}, codes.Canceled},
		"another unknown":   {status.Error(codes.Unknown, ""), []string{good}, codes.Unknown},
		"no trailer":        {eof, nil, codes.Unknown},
		"two trailers":      {eof, []string{good, good}, codes.Unknown},
		"no status":         {eof, []string{"\xff\xff\xff"}, codes.Unknown},
		"OK":                {eof, []string{encode(func(s *spb.Status) { s.Code = 0 })}, codes.Unknown},
		"no code":           {eof, []string{encode(func(s *spb.Status) { s.Code = -7 })}, codes.Unknown},
		"no details":        {eof, []string{encode(func(s *spb.Status) { s.Details = nil })}, codes.Unknown},
		"the same code":     {status.Error(codes.DeadlineExceeded, "x"), []string{encode(func(s *spb.Status) { s.Code = 4 })}, codes.DeadlineExceeded},
		"a code of its own": {eof, []string{encode(func(s *spb.Status) { s.Code = 8 })}, codes.ResourceExhausted},
	} {
		err := interceptors.UnaryRestore(t.Context(), work, nil, nil, nil, func(
			_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption,
		) error {
			for _, o := range opts {
				if o, ok := o.(grpc.TrailerCallOption); ok {
					*o.TrailerAddr = metadata.MD{"grpc-status-details-bin": c.details}
				}
			}
			return c.err
		})
		if got := status.Code(err); got != c.want {
			t.Errorf("%s: got %v (%v), want %v", name, got, err, c.want)
		}
	}
}
