package calltest

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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/examples/demopb"
)

// An Instance is the handler of one server of a fleet. at is the time since the start.
type Instance func(ctx context.Context, at time.Duration) error

// ErrDown is the error of an instance that is down.
var ErrDown = status.Error(codes.Unavailable, "as told")

// Takes returns an instance that serves its calls after d, or not when their context ends.
func Takes(d time.Duration) Instance {
	return func(ctx context.Context, _ time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// Down is an instance that fails all calls at once.
func Down(context.Context, time.Duration) error { return ErrDown }

// Hang is an instance that answers no call.
func Hang(ctx context.Context, at time.Duration) error { return Takes(time.Hour)(ctx, at) }

// Half returns an instance that fails half of its calls, by lot.
func Half(seed uint64) Instance {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, seed))
	return func(ctx context.Context, at time.Duration) error {
		mu.Lock()
		fails := r.IntN(2) == 0
		mu.Unlock()
		if fails {
			return ErrDown
		}
		return Takes(10*time.Millisecond)(ctx, at)
	}
}

// Until returns an instance that changes at a time.
func Until(at time.Duration, before, then Instance) Instance {
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

// Fleet starts a server for each instance, and a client that balances over them. A stream of
// Exchange gets a message once its instance has served it, and lasts until the client ends it.
func Fleet(t *testing.T, balancer string, listen func(i int) net.Listener, dial func(context.Context, string) (net.Conn, error),
	instances []Instance, opts ...grpc.DialOption,
) demopb.DemoServiceClient {
	t.Helper()
	began := time.Now()
	r := manual.NewBuilderWithScheme("fleet")
	var state resolver.State
	for i, does := range instances {
		l := listen(i)
		s := grpc.NewServer(grpc.WaitForHandlers(true))
		demopb.RegisterDemoServiceServer(s, &Service{
			OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
				return &demopb.WorkResponse{}, does(ctx, time.Since(began))
			},
			OnExchange: func(s demopb.DemoService_ExchangeServer) error {
				if err := does(s.Context(), time.Since(began)); err != nil {
					return err
				}
				if err := s.Send(&demopb.ExchangeResponse{}); err != nil {
					return err
				}
				<-s.Context().Done()
				return status.FromContextError(s.Context().Err()).Err()
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

// InMemory starts a fleet with connections in memory. grpc.Peer reports an address for each
// server if addresses is set, and otherwise the same address for all of them.
func InMemory(t *testing.T, balancer string, addresses bool, instances []Instance, opts ...grpc.DialOption) demopb.DemoServiceClient {
	t.Helper()
	listeners := map[string]*bufconn.Listener{}
	return Fleet(t, balancer, func(i int) net.Listener {
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

// Offer makes one call each period for d. It returns, for each second, how many of the
// calls that began in it were served.
func Offer(t *testing.T, c demopb.DemoServiceClient, period, deadline, d time.Duration) []int {
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

// Subscribe opens a stream each period for d. Each lasts until the end. It returns how many were
// answered.
func Subscribe(t *testing.T, c demopb.DemoServiceClient, period, d time.Duration) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served atomic.Int64
	for began := time.Now(); time.Since(began) < d; time.Sleep(period) {
		go func() {
			s, err := c.Exchange(ctx)
			if err == nil {
				_, err = s.Recv()
			}
			if err == nil {
				served.Add(1)
				_, _ = s.Recv() // until the end
			}
		}()
	}
	synctest.Wait()
	return int(served.Load())
}

// Sum returns the sum of ns.
func Sum(ns []int) (s int) {
	for _, n := range ns {
		s += n
	}
	return s
}
