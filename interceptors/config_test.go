package interceptors_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

// standBack are the options of a client with everything.
func standBack(t *testing.T, c interceptors.ClientConfig) []grpc.DialOption {
	t.Helper()
	dial, err := interceptors.Client(c)
	if err != nil {
		t.Fatal(err)
	}
	return dial
}

func everything(t *testing.T) interceptors.ClientConfig {
	t.Helper()
	targets, err := throttle.New(throttle.Config{})
	if err != nil {
		t.Fatal(err)
	}
	circuits, err := breaker.New(breaker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return interceptors.ClientConfig{
		Propagate:     true,
		Throttle:      targets,
		Gate:          newGate(t, admit.WithLimit(fixed(1000)), admit.WithQueue(admit.QueueConfig{Policy: admit.Block})),
		Streams:       newGate(t, admit.WithLimit(fixed(1000))),
		Breaker:       circuits,
		Retry:         &retry.Config{},
		SecondRetries: func(target, method string) { t.Errorf("a second layer of retries at %s%s, want none", target, method) },
	}
}

// However many services stand in a row, all of them with retries, and whatever share of its calls
// the last one refuses: what reaches it is at most a tenth, the budget, more than what was asked for,
// and the few that the budget begins with.
func TestAttemptsDoNotMultiply(t *testing.T) {
	t.Parallel()
	for _, failing := range []int{0, 20, 50, 100} { // percent
		for _, layers := range []int{1, 2, 4} {
			for _, all := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					const calls, budget, start = 400, 0.1, 10
					var arrived atomic.Int64
					next := layer(t, does(func(context.Context) error {
						if arrived.Add(1)*37%100 < int64(failing) {
							return status.Error(codes.Unavailable, "full")
						}
						return nil
					}), all)
					for range layers {
						next = layer(t, asks(next), all)
					}
					for range calls {
						_, _ = next.Work(t.Context(), &demopb.WorkRequest{})
						time.Sleep(10 * time.Millisecond)
					}
					got, most := arrived.Load(), calls*(1+budget)+start
					if float64(got) > most {
						t.Errorf("%d %% fail, %d layers, everything %v: got %d attempts at the last one for %d calls, want at most %.0f",
							failing, layers, all, got, calls, most)
					}
				})
			}
		}
	}
}

// layer starts a service with a gate, and a client that retries, or has everything.
func layer(t *testing.T, svc *service, all bool) *rig {
	t.Helper()
	c := interceptors.ClientConfig{Propagate: true, Retry: &retry.Config{}}
	if all {
		c = everything(t)
	}
	server, err := interceptors.Server(interceptors.ServerConfig{Gate: newGate(t)}, interceptors.WithPropagation(nil))
	if err != nil {
		t.Fatal(err)
	}
	return start(t, svc, server, standBack(t, c)...)
}

// The order: what is refused at one place costs nothing further in.
func TestTheOrderOfAClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := everything(t)
		var ends atomic.Value
		ends.Store(status.Error(codes.Internal, "unwell"))
		r := start(t, does(func(context.Context) error { err, _ := ends.Load().(error); return err }), nil, standBack(t, c)...)
		for range 30 { // the breaker opens
			_, _ = r.Work(t.Context(), &demopb.WorkRequest{})
		}
		_, err := r.Work(t.Context(), &demopb.WorkRequest{})
		if !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v, want that the circuit is open", err)
		}
		if s := c.Throttle.Stats(); len(s) != 1 || s[0].Probability != 0 {
			t.Errorf("throttle: got %+v, want it to refuse nothing because of the breaker", s)
		}
		if s := c.Gate.Stats(); s.InFlight != 0 || s.Ended[admit.Overload] != 0 {
			t.Errorf("limit: got %+v, want nothing in flight, and no overload because of the breaker", s)
		}
		_, err = r.Exchange(t.Context())
		if err != nil {
			t.Errorf("a stream of another method: got %v, want no error", err)
		}
	})
}

func TestClientSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := interceptors.Client(interceptors.ClientConfig{})
	wantConfigError(t, err, "got nothing configured")
	_, err = interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{MaxAttempts: 9}})
	wantConfigError(t, err, "MaxAttempts: got 9")
	g := newGate(t)
	_, err = interceptors.Client(interceptors.ClientConfig{Gate: g, Streams: g})
	wantConfigError(t, err, "Streams: got the gate of the calls")
	_, err = interceptors.Client(interceptors.ClientConfig{Throttle: &throttle.Throttle{}, Breaker: &breaker.Breaker{}})
	wantConfigError(t, err, "Throttle: got a zero Throttle", "Breaker: got a zero Breaker")
	if _, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}}); err != nil {
		t.Errorf("retries alone: got %v, want no error", err)
	}
}

func TestServerSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	for says, c := range map[string]interceptors.ServerConfig{
		"Gate: got nil":                       {},
		"Streams: got the gate of the calls":  {Gate: g, Streams: g},
		"Tap: got it with Streams":            {Gate: g, Streams: newGate(t), Tap: true},
		"Outside[1]: got nil":                 {Gate: g, Outside: []grpc.UnaryServerInterceptor{interceptors.UnaryServer(g), nil}},
		"InsideStreams[0]: got nil":           {Gate: g, InsideStreams: []grpc.StreamServerInterceptor{nil}},
		"server: OutsideStreams[0]: got nil,": {OutsideStreams: []grpc.StreamServerInterceptor{nil}},
	} {
		_, err := interceptors.Server(c)
		wantConfigError(t, err, says)
	}
}

// What stands outside sees refusals, what stands inside only calls that were let in.
func TestTheOrderOfAServer(t *testing.T) {
	t.Parallel()
	for _, tap := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var outside, inside atomic.Int64
			count := func(n *atomic.Int64) []grpc.UnaryServerInterceptor {
				return []grpc.UnaryServerInterceptor{func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
					n.Add(1)
					return h(ctx, req)
				}}
			}
			g := strict(t, 1)
			c := interceptors.ServerConfig{Outside: count(&outside), Gate: g, Inside: count(&inside), Tap: tap}
			if !tap {
				c.Streams = strict(t, 1)
			}
			server, err := interceptors.Server(c)
			if err != nil {
				t.Fatal(err)
			}
			r := start(t, &service{}, server)
			if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
				t.Fatal(err)
			}
			fill(t, g)
			_, err = r.Work(t.Context(), &demopb.WorkRequest{})
			wantCode(t, err, codes.Unavailable)
			want := int64(2)
			if tap { // it does not get so far
				want = 1
			}
			if outside.Load() != want || inside.Load() != 1 {
				t.Errorf("tap %v: got %d outside and %d inside, want %d and 1", tap, outside.Load(), inside.Load(), want)
			}
			if tap {
				return
			}
			fill(t, c.Streams)
			s, err := r.Exchange(t.Context())
			if err == nil {
				_, err = s.Recv()
			}
			wantCode(t, err, codes.Unavailable)
		})
	}
}

// However calls and streams end, and at the same time, a client with everything holds
// nothing when they have.
func TestEverythingConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := everything(t)
		c.Propagate, c.DeadlineMargin = true, time.Millisecond
		c.Throttle = newThrottle(t, throttle.Config{Window: time.Second})
		c.Breaker = newBreaker(t, breaker.Config{
			Window: 50 * time.Millisecond, OpenFor: 5 * time.Millisecond, MinCalls: 5, SlowCall: time.Millisecond,
		})
		r := start(t, moody(), nil, standBack(t, c)...)
		var callers sync.WaitGroup
		for i := range 8 {
			callers.Go(func() {
				for n := range 300 {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
					if (n+i)%2 == 0 {
						_, _ = r.Work(ctx, &demopb.WorkRequest{})
					} else if s, err := r.Exchange(ctx); err == nil {
						converse(s, n, cancel)
					}
					cancel()
					time.Sleep(time.Duration(n%3) * time.Millisecond)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		atRest(t, c.Gate)
		atRest(t, c.Streams)

		time.Sleep(time.Minute) // all that was bad is forgotten
		if _, err := r.Work(t.Context(), &demopb.WorkRequest{Name: "kindly"}); err != nil {
			t.Errorf("a call a minute later: got %v, want no error", err)
		}
	})
}

// moody is a service that does now this and now that, unless it is asked kindly.
func moody() *service {
	return &service{
		OnWork: func(_ context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			switch rand.IntN(4) {
			case 0:
				if req.GetName() == "" {
					return nil, status.Error(codes.Unavailable, "in a mood")
				}
			case 1:
				time.Sleep(2 * time.Millisecond)
			}
			return &demopb.WorkResponse{}, nil
		},
		OnExchange: func(s demopb.DemoService_ExchangeServer) error {
			for {
				if _, err := s.Recv(); err != nil {
					return err
				}
				switch rand.IntN(6) {
				case 0:
					return status.Error(codes.Unavailable, "in a mood")
				case 1:
					_ = s.SendHeader(nil)
				default:
					_ = s.Send(&demopb.ExchangeResponse{})
				}
			}
		},
	}
}

// converse uses a stream in one of the ways in which streams are used.
func converse(s demopb.DemoService_ExchangeClient, way int, cancel func()) {
	go func() {
		_ = s.Send(&demopb.ExchangeRequest{})
		_ = s.Send(&demopb.ExchangeRequest{})
		_ = s.CloseSend()
	}()
	switch way % 5 {
	case 0:
		_, _ = s.Recv()
	case 1:
		_, _ = s.Header()
	case 2:
		go cancel()
		_, _ = s.Recv()
	case 3:
		for _, err := s.Recv(); err == nil; {
			_, err = s.Recv()
		}
	}
}
