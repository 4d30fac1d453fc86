package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// ending returns a handler that ends a call after d with err.
func ending(d time.Duration, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// alternating does one thing and the other in turn.
func alternating(a, b func(context.Context) error) func(context.Context) error {
	var n atomic.Int64
	return func(ctx context.Context) error {
		if n.Add(1)%2 == 0 {
			return a(ctx)
		}
		return b(ctx)
	}
}

// refusingAll does what a full gate of weir does, delay included.
func refusingAll(t *testing.T) func(context.Context) error {
	t.Helper()
	full := strict(t, 1)
	fill(t, full)
	return func(ctx context.Context) error {
		_, err := interceptors.UnaryServer(full)(ctx, nil, workInfo, succeed)
		return err
	}
}

// A healing is a server that is well for a while, in trouble for 4 s, and well again.
type healing struct {
	trouble func(context.Context) error // nil: nobody listens
	before  time.Duration               // the trouble
	rate    int                         // calls a second
	takes   time.Duration               // a call, when all is well
	call    func(context.Context, demopb.DemoServiceClient) error
}

const troubled = 4 * time.Second

// run makes calls and returns how many were lost of those that began 2 s after the
// trouble or later, or 200 calls after it if that is later.
func (h healing) run(t *testing.T, dial ...grpc.DialOption) (lost, made int) {
	t.Helper()
	began := time.Now()
	ill := func() bool { at := time.Since(began); return at >= h.before && at < h.before+troubled }
	serve := func(ctx context.Context) error {
		if ill() && h.trouble != nil {
			return h.trouble(ctx)
		}
		return ending(h.takes, nil)(ctx)
	}
	svc := &service{
		OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			return &demopb.WorkResponse{}, serve(ctx)
		},
		OnExchange: func(s demopb.DemoService_ExchangeServer) error { return serve(s.Context()) },
	}
	var p *grpctest.Pair
	var mu sync.Mutex // guards open
	var open []net.Conn
	dial = append(dial,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond}}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if ill() && h.trouble == nil {
				return nil, errors.New("connection refused")
			}
			mu.Lock()
			defer mu.Unlock()
			open = append(open, p.NetConn(t))
			return open[len(open)-1], nil
		}))
	p = grpctest.Start(t, svc.Register, grpctest.DialOptions(dial...))
	if h.trouble == nil {
		time.AfterFunc(h.before, func() {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range open {
				_ = c.Close()
			}
		})
	}
	return h.load(t, demopb.NewDemoServiceClient(p.Conn))
}

func (h healing) load(t *testing.T, to demopb.DemoServiceClient) (lost, made int) {
	t.Helper()
	period := time.Second / time.Duration(h.rate)
	healed := h.before + troubled + max(2*time.Second, 200*period)
	var bad atomic.Int64
	var calls sync.WaitGroup
	for at := time.Duration(0); at < healed+5*time.Second; at += period {
		counts := at >= healed
		if counts {
			made++
		}
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := h.call(ctx, to); err != nil && counts {
				bad.Add(1)
			}
		})
		time.Sleep(period)
	}
	calls.Wait()
	return int(bad.Load()), made
}

func callWork(ctx context.Context, c demopb.DemoServiceClient) error {
	_, err := c.Work(ctx, &demopb.WorkRequest{})
	return err
}

// callExchange opens a stream and waits for its end.
func callExchange(ctx context.Context, c demopb.DemoServiceClient) error {
	s, err := c.Exchange(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Recv(); status.Code(err) != codes.OK && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Whatever a server did for 4 s, its clients get full service again within 2 s: the gate
// of a client remembers no trouble.
func TestClientGateHeals(t *testing.T) {
	ms := time.Millisecond
	well := ending(5*ms, nil)
	troubles := map[string]func(context.Context) error{
		"UNAVAILABLE":                       ending(0, errDown),
		"UNAVAILABLE after 50 ms":           ending(50*ms, errDown),
		"UNAVAILABLE after 700 ms":          ending(700*ms, errDown),
		"INTERNAL":                          ending(0, status.Error(codes.Internal, "")),
		"INTERNAL after 200 ms":             ending(200*ms, status.Error(codes.Internal, "")),
		"DEADLINE_EXCEEDED of its own":      ending(0, status.Error(codes.DeadlineExceeded, "")),
		"DEADLINE_EXCEEDED after 100 ms":    ending(100*ms, status.Error(codes.DeadlineExceeded, "")),
		"hangs":                             ending(time.Hour, nil),
		"RESOURCE_EXHAUSTED":                ending(0, status.Error(codes.ResourceExhausted, "quota")),
		"RESOURCE_EXHAUSTED of a full gate": ending(0, detailed(codes.ResourceExhausted, "weir", "QUEUE_FULL")),
		"a full gate, with its delay":       refusingAll(t),
		"slow, 200 ms":                      ending(200*ms, nil),
		"slow, 900 ms":                      ending(900*ms, nil),
		"half fail":                         alternating(well, ending(0, errDown)),
		"half hang":                         alternating(well, ending(time.Hour, nil)),
		"half are slow":                     alternating(well, ending(800*ms, nil)),
		"nobody listens":                    nil,
	}
	for _, kind := range []struct {
		name string
		call func(context.Context, demopb.DemoServiceClient) error
		dial func(g *admit.Gate) grpc.DialOption
	}{
		{"unary", callWork, func(g *admit.Gate) grpc.DialOption { return grpc.WithUnaryInterceptor(interceptors.UnaryClient(g)) }},
		{"stream", callExchange, func(g *admit.Gate) grpc.DialOption { return grpc.WithStreamInterceptor(interceptors.StreamClient(g)) }},
	} {
		for name, trouble := range troubles {
			for _, h := range []healing{
				{rate: 200, takes: 5 * ms},
				{rate: 50, takes: 100 * ms, before: 5 * time.Second},
			} {
				if h.trouble, h.call = trouble, kind.call; kind.name == "stream" {
					h.rate = 50 // streams teach the gate nothing, at any rate
				}
				t.Run(fmt.Sprintf("%s/%s/well for %v", kind.name, name, h.before), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						g := newGate(t)
						lost, made := h.run(t, kind.dial(g))
						if s := g.Stats(); lost > 0 {
							t.Errorf("lost from 2 s after the trouble on: got %d of %d, want 0 (limit %d, refused %v)", lost, made, s.Limit, s.Refused)
						}
						atRest(t, g)
					})
				})
			}
		}
	}
}
