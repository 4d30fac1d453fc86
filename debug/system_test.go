package debug_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

const ms = time.Millisecond

// must returns v, or fails the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// service is a server with a function for each method.
type service struct {
	demopb.UnimplementedDemoServiceServer
	demopb.UnimplementedStreamServiceServer

	work      func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error)
	subscribe func(grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error
}

func (s service) Work(ctx context.Context, r *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return s.work(ctx, r)
}

func (s service) Subscribe(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	return s.subscribe(stream)
}

func (s service) register(r grpc.ServiceRegistrar) {
	demopb.RegisterDemoServiceServer(r, s)
	demopb.RegisterStreamServiceServer(r, s)
}

// callers run until the test ends.
type callers struct {
	ctx  context.Context
	wait sync.WaitGroup
}

func newCallers(t testing.TB) *callers {
	ctx, cancel := context.WithCancel(context.Background())
	c := &callers{ctx: ctx}
	t.Cleanup(func() {
		cancel()
		c.wait.Wait()
	})
	return c
}

// repeat calls f again and again, with a pause.
func (c *callers) repeat(pause time.Duration, f func(context.Context)) {
	c.wait.Go(func() {
		for c.ctx.Err() == nil {
			f(c.ctx)
			select {
			case <-time.After(pause):
			case <-c.ctx.Done():
			}
		}
	})
}

// troubled is a process in which everything that the page should show goes wrong.
func troubled(t testing.TB) []debug.Source {
	c := newCallers(t)
	return []debug.Source{
		overloaded(t, c), deadlocked(t, c), stalled(t, c), failing(t, c), refusing(t, c), pressed(t),
	}
}

// overloaded is a gate that gets more calls than its server can serve.
func overloaded(t testing.TB, c *callers) *admit.Gate {
	law := must(limit.NewAdaptive(limit.AdaptiveConfig{Max: 8}))(t)
	gate := must(admit.New(admit.WithName("api"), admit.WithLimit(law), admit.WithQueue(admit.QueueConfig{Capacity: 8})))(t)
	worker := make(chan struct{}, 2)
	s := service{work: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		select {
		case worker <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-worker }()
		select {
		case <-time.After(20 * ms):
		case <-ctx.Done():
		}
		return &demopb.WorkResponse{}, ctx.Err()
	}}
	p := grpctest.Start(t, s.register, grpctest.ServerOptions(must(interceptors.Server(interceptors.ServerConfig{Gate: gate},
		interceptors.WithTenant(func(context.Context, interceptors.CallMeta) string { return "secret-customer" }),
	))(t)...))
	client := demopb.NewDemoServiceClient(p.Conn)
	for range 48 {
		c.repeat(30*ms, func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, 500*ms)
			defer cancel()
			_, _ = client.Work(ctx, &demopb.WorkRequest{})
		})
	}
	return gate
}

// deadlocked is a gate whose calls wait for calls to the same gate.
func deadlocked(t testing.TB, c *callers) *admit.Gate {
	gate := must(admit.New(admit.WithName("orders"), admit.WithFixedLimit(2), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour})))(t)
	var client demopb.DemoServiceClient
	s := service{work: func(ctx context.Context, r *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		if r.GetName() == "outer" {
			return client.Work(ctx, &demopb.WorkRequest{Name: "inner"})
		}
		return &demopb.WorkResponse{}, nil
	}}
	p := grpctest.Start(t, s.register, grpctest.ServerOptions(must(interceptors.Server(interceptors.ServerConfig{Gate: gate}))(t)...))
	client = demopb.NewDemoServiceClient(p.Conn)
	for range 3 {
		c.repeat(time.Second, func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			_, _ = client.Work(ctx, &demopb.WorkRequest{Name: "outer"})
		})
	}
	return gate
}

// stalled is a stream whose receiver consumes nothing.
func stalled(t testing.TB, c *callers) *streamcredit.Meter {
	meter := streamcredit.NewMeter("feed")
	s := service{subscribe: func(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
		out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(meter))
		for err == nil {
			err = out.Send(stream.Context(), &demopb.SubscribeResponse{})
		}
		return err
	}}
	p := grpctest.Start(t, s.register)
	in := must(streamcredit.DialReceive(c.ctx, demopb.NewStreamServiceClient(p.Conn).Subscribe, streamcredit.WithWindow(8)))(t)
	t.Cleanup(func() { _ = in.Close() })
	return meter
}

// failing is a breaker of a target that fails.
func failing(t testing.TB, c *callers) *breaker.Breaker {
	circuits := must(breaker.New(breaker.Config{Name: "to-stock", OpenFor: time.Hour}))(t)
	s := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		return nil, status.Error(codes.Unavailable, "down")
	}}
	p := grpctest.Start(t, s.register, grpctest.DialOptions(must(interceptors.Client(interceptors.ClientConfig{Breaker: circuits}))(t)...))
	client := demopb.NewDemoServiceClient(p.Conn)
	for range 100 {
		if _, err := client.Work(c.ctx, &demopb.WorkRequest{}); errors.Is(err, breaker.ErrOpen) {
			return circuits
		}
	}
	c.repeat(20*ms, func(ctx context.Context) { _, _ = client.Work(ctx, &demopb.WorkRequest{}) })
	return circuits
}

// refusing is a throttle of a target that refuses.
func refusing(t testing.TB, c *callers) *throttle.Throttle {
	throttled := must(throttle.New(throttle.Config{Name: "to-mail"}))(t)
	s := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		return nil, status.Error(codes.Unavailable, "full")
	}}
	p := grpctest.Start(t, s.register, grpctest.DialOptions(must(interceptors.Client(interceptors.ClientConfig{Throttle: throttled}))(t)...))
	client := demopb.NewDemoServiceClient(p.Conn)
	for range 50 {
		_, _ = client.Work(c.ctx, &demopb.WorkRequest{})
	}
	c.repeat(20*ms, func(ctx context.Context) { _, _ = client.Work(ctx, &demopb.WorkRequest{}) })
	return throttled
}

// pressed is a monitor of a pool that is almost used up.
func pressed(t testing.TB) *pressure.Monitor {
	m := must(pressure.New(pressure.WithName("process"), pressure.WithEvery(10*ms),
		pressure.WithSignals(pressure.NewSignal("pool", func() (float64, error) { return 0.95, nil }))))(t)
	m.Start()
	t.Cleanup(m.Stop)
	return m
}

// openStreams opens streams whose receivers have asked for elements that do not come.
func openStreams(t testing.TB, meter *streamcredit.Meter, n int) {
	s := service{subscribe: func(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
		if _, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(meter)); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}}
	p := grpctest.Start(t, s.register)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	client := demopb.NewStreamServiceClient(p.Conn)
	for range n {
		in := must(streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithWindow(8)))(t)
		t.Cleanup(func() { _ = in.Close() })
	}
	for meter.Stats().Streams < n {
		time.Sleep(ms)
	}
}
