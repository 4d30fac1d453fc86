package breaker_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/leastrequest" // one of the balancers under test

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/breaker"
)

func withBreaker(t *testing.T, b *breaker.Breaker) grpc.DialOption {
	t.Helper()
	return grpc.WithUnaryInterceptor(breaker.Unary(b))
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
					b := newBreaker(t, breaker.Config{})
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
			b := newBreaker(t, breaker.Config{})
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
					b := newBreaker(t, breaker.Config{})
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
			b := newBreaker(t, breaker.Config{})
			var armed atomic.Bool
			client := fleet(t, "round_robin", listen, dial, instances, grpc.WithUnaryInterceptor(func(
				ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
			) error {
				if !armed.Load() {
					return invoker(ctx, method, req, reply, cc, opts...)
				}
				return breaker.Unary(b)(ctx, method, req, reply, cc, invoker, opts...)
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
