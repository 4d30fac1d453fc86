package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/leastrequest" // one of the balancers under test
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// An instance is what one server of a fleet does to a call at a time after the start.
type instance func(ctx context.Context, at time.Duration) error

var errDown = status.Error(codes.Unavailable, "as told")

// takes returns an instance that serves its calls after d, or not when their context ends.
func takes(d time.Duration) instance {
	return func(ctx context.Context, _ time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func down(context.Context, time.Duration) error { return errDown }

func hang(ctx context.Context, at time.Duration) error { return takes(time.Hour)(ctx, at) }

// half returns an instance that fails half of its calls, by lot.
func half(seed uint64) instance {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, seed))
	return func(ctx context.Context, at time.Duration) error {
		mu.Lock()
		fails := r.IntN(2) == 0
		mu.Unlock()
		if fails {
			return errDown
		}
		return takes(10*time.Millisecond)(ctx, at)
	}
}

// until returns an instance that changes at a time.
func until(at time.Duration, before, then instance) instance {
	return func(ctx context.Context, now time.Duration) error {
		if now < at {
			return before(ctx, now)
		}
		return then(ctx, now)
	}
}

// A named connection has the address of its server, as one over a network has.
type named struct {
	net.Conn
	addr net.Addr
}

func (n *named) RemoteAddr() net.Addr { return n.addr }

// fleet starts a server for each instance, and a client that balances over them.
func fleet(t *testing.T, balancer string, listen func(i int) net.Listener, dial func(context.Context, string) (net.Conn, error),
	instances []instance, opts ...grpc.DialOption,
) demopb.DemoServiceClient {
	t.Helper()
	began := time.Now()
	r := manual.NewBuilderWithScheme("fleet")
	var state resolver.State
	for i, does := range instances {
		l := listen(i)
		s := grpc.NewServer(grpc.WaitForHandlers(true))
		demopb.RegisterDemoServiceServer(s, &service{
			work: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
				return &demopb.WorkResponse{}, does(ctx, time.Since(began))
			},
		})
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		t.Cleanup(func() {
			s.Stop()
			if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				t.Error(err)
			}
		})
		addr := l.Addr().String()
		if l.Addr().Network() == "bufconn" {
			addr = fmt.Sprint("10.0.0.", i+1, ":1")
		}
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr}}})
	}
	r.InitialState(state)
	conn, err := grpc.NewClient("fleet:///all", append([]grpc.DialOption{
		grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + balancer + `":{}}]}`),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := demopb.NewDemoServiceClient(conn)
	conn.Connect()
	time.Sleep(50 * time.Millisecond) // until all connections are there, so that runs are alike
	return client
}

// inMemory starts a fleet whose connections are in memory. They have addresses, or none
// that tells them apart.
func inMemory(t *testing.T, balancer string, addresses bool, instances []instance, opts ...grpc.DialOption) demopb.DemoServiceClient {
	t.Helper()
	listeners := map[string]*bufconn.Listener{}
	return fleet(t, balancer, func(i int) net.Listener {
		l := bufconn.Listen(256 << 10)
		listeners[fmt.Sprint("10.0.0.", i+1, ":1")] = l
		return l
	}, func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := listeners[addr].DialContext(ctx)
		if err != nil || !addresses {
			return c, err
		}
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		return &named{c, tcp}, err
	}, instances, opts...)
}

// offer makes calls, one each period, and returns how many were served of those that
// began in each second.
func offer(t *testing.T, c demopb.DemoServiceClient, period, deadline, d time.Duration) []int {
	t.Helper()
	served := make([]atomic.Int64, d/time.Second)
	var calls sync.WaitGroup
	for at := time.Duration(0); at < d; at += period {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			if _, err := c.Work(ctx, &demopb.WorkRequest{}); err == nil {
				served[at/time.Second].Add(1)
			}
		})
		time.Sleep(period)
	}
	calls.Wait()
	sums := make([]int, len(served))
	for i := range served {
		sums[i] = int(served[i].Load())
	}
	return sums
}

func sum(ns []int) (s int) {
	for _, n := range ns {
		s += n
	}
	return s
}

func withBreaker(t *testing.T, b *interceptors.Breaker) grpc.DialOption {
	t.Helper()
	return grpc.WithUnaryInterceptor(interceptors.UnaryBreaker(b))
}

// Whatever some instances do: as long as one serves calls, a breaker loses none of them.
func TestBreakerLosesNothingWhileAnInstanceServes(t *testing.T) {
	const rate, seconds = 30, 16
	well, slow := takes(10*time.Millisecond), takes(60*time.Millisecond)
	for name, c := range map[string]struct {
		instances []instance
		random    bool // which calls fail
	}{
		"one of two":                          {instances: []instance{down, well}},
		"one of two, sooner than the other":   {instances: []instance{down, slow}},
		"one of three":                        {instances: []instance{well, down, well}},
		"two of three":                        {instances: []instance{down, down, well}},
		"two of three, sooner than the other": {instances: []instance{down, down, slow}},
		"four of five":                        {instances: []instance{down, down, down, slow, down}},
		"one of two hangs":                    {instances: []instance{hang, well}},
		"two of three hang":                   {instances: []instance{well, hang, hang}},
		"one hangs, one fails, one serves":    {instances: []instance{hang, down, slow}},
		"one of two fails half":               {instances: []instance{half(1), well}, random: true},
		"both fail half":                      {instances: []instance{half(1), half(2)}, random: true},
		"one fails, one fails half":           {instances: []instance{down, half(3)}, random: true},
		"two fail, one fails half":            {instances: []instance{down, half(4), down}, random: true},
		"one begins to fail":                  {instances: []instance{until(7*time.Second, well, down), well}},
		"one after the other fails":           {instances: []instance{until(7*time.Second, well, down), until(7*time.Second, down, well)}},
		"one fails and comes back":            {instances: []instance{until(7*time.Second, down, well), well}},
	} {
		for _, balancer := range []string{"round_robin", "least_request_experimental"} {
			for _, addresses := range []bool{true, false} {
				if !addresses && (c.random || balancer != "round_robin") {
					continue // by lot, any number of calls fail in a row, and nothing tells them apart
				}
				t.Run(fmt.Sprint(name, "/", balancer, "/addresses=", addresses), func(t *testing.T) {
					t.Parallel()
					run := func(opts ...grpc.DialOption) (served int) {
						synctest.Test(t, func(t *testing.T) {
							client := inMemory(t, balancer, addresses, c.instances, opts...)
							served = sum(offer(t, client, time.Second/rate, 300*time.Millisecond, seconds*time.Second))
						})
						return served
					}
					bare := run()
					b := newBreaker(t, interceptors.BreakerConfig{})
					got := run(withBreaker(t, b))
					slack, byLot := 3, c.random || balancer != "round_robin"
					if byLot { // other calls meet other instances
						slack = rate * seconds / 20
					}
					s := circuit(t, b)
					fewer := got < bare-slack && (!byLot || s.Refused > 0)
					if fewer || s.Refused > 0 && !c.random {
						t.Errorf("served of %d calls: got %d, want the %d of the same without a breaker (%+v)", rate*seconds, got, bare, s)
					}
				})
			}
		}
	}
}

// A fresh client's first calls all go out at once, and those that fail end first.
func TestBreakerWaitsForTheSlowerOfTheFirstCalls(t *testing.T) {
	for _, addresses := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, interceptors.BreakerConfig{})
			client := inMemory(t, "round_robin", addresses, []instance{down, takes(500 * time.Millisecond), down}, withBreaker(t, b))
			for range 20 {
				if got := sum(offer(t, client, time.Second/300, 2*time.Second, time.Second)); got < 100 {
					t.Errorf("served of 301: got %d, want at least 100", got)
				}
			}
		})
	}
}

// Where no instance serves calls, the circuit opens. Probes go to each instance, and one
// that is back closes it, however many are not.
func TestBreakerOfAFleet(t *testing.T) {
	const rate = 100
	well := takes(10 * time.Millisecond)
	for name, instances := range map[string][]instance{
		"one of two":        {until(10*time.Second, down, well), down},
		"one of five":       {down, down, until(10*time.Second, down, well), down, down},
		"one of two hangs":  {hang, until(10*time.Second, hang, well)},
		"one of five hangs": {hang, hang, hang, hang, until(10*time.Second, hang, well)},
		"slow one of three": {down, down, until(10*time.Second, down, takes(100*time.Millisecond))},
	} {
		for _, addresses := range []bool{true, false} {
			t.Run(fmt.Sprint(name, "/addresses=", addresses), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBreaker(t, interceptors.BreakerConfig{})
					client := inMemory(t, "round_robin", addresses, instances, withBreaker(t, b))
					_ = offer(t, client, time.Second/rate, 300*time.Millisecond, 9*time.Second)
					s := circuit(t, b)
					if s.Opened == 0 || s.Refused < 5*rate {
						t.Fatalf("circuit after 9 s without an answer: got %+v, want it opened, and most calls refused", s)
					}
					// One OpenFor and a little more after the instance is back.
					_ = offer(t, client, time.Second/rate, 300*time.Millisecond, 9*time.Second)
					got, want := sum(offer(t, client, time.Second/rate, 300*time.Millisecond, 10*time.Second)), 10*rate/len(instances)
					if got < want-1 {
						t.Errorf("served in 10 s after one of %d is back: got %d, want %d (%+v)", len(instances), got, want, circuit(t, b))
					}
				})
			})
		}
	}
}

// The same over sockets, without a virtual clock, with calls as fast as they come.
func TestBreakerOverSockets(t *testing.T) {
	listen := func(int) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
	const calls = 600
	ok := func(context.Context, time.Duration) error { return nil }
	for name, instances := range map[string][]instance{
		"one of two": {down, ok}, "two of three": {down, ok, down}, "four of five": {down, down, ok, down, down},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBreaker(t, interceptors.BreakerConfig{})
			var armed atomic.Bool
			client := fleet(t, "round_robin", listen, dial, instances, grpc.WithUnaryInterceptor(func(
				ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
			) error {
				if !armed.Load() {
					return invoker(ctx, method, req, reply, cc, opts...)
				}
				return interceptors.UnaryBreaker(b)(ctx, method, req, reply, cc, invoker, opts...)
			}))
			// Connections come up one by one.
			for ready := 0; ready < len(instances); {
				if _, err := client.Work(t.Context(), &demopb.WorkRequest{}, grpc.WaitForReady(true)); err == nil {
					ready++
				}
			}
			armed.Store(true)
			served := 0
			for range calls {
				if _, err := client.Work(t.Context(), &demopb.WorkRequest{}); err == nil {
					served++
				}
			}
			if want := calls / len(instances); served < want-1 {
				t.Errorf("served of %d: got %d, want %d (%+v)", calls, served, want, circuit(t, b))
			}
			if s := circuit(t, b); s.Refused > 0 || s.Opened > 0 {
				t.Errorf("circuit: got %+v, want it never opened", s)
			}
		})
	}
}
