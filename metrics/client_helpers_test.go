package metrics_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/metrics"
)

// A demo is a DemoService made of functions.
type demo struct {
	demopb.UnimplementedDemoServiceServer

	work     func(context.Context) error
	watch    func() error
	exchange func() error
}

func (d demo) Work(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return &demopb.WorkResponse{}, d.work(ctx)
}

func (d demo) Watch(*demopb.WatchRequest, grpc.ServerStreamingServer[demopb.WatchResponse]) error {
	return d.watch()
}

func (d demo) Exchange(grpc.BidiStreamingServer[demopb.ExchangeRequest, demopb.ExchangeResponse]) error {
	return d.exchange()
}

// start serves d and returns a client of it.
func (d demo) start(t testing.TB, opts ...grpc.DialOption) caller {
	t.Helper()
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, d) },
		grpctest.DialOptions(opts...))
	return caller{demopb.NewDemoServiceClient(p.Conn)}
}

// A caller makes calls of which only the error is of interest.
type caller struct{ demopb.DemoServiceClient }

func (c caller) work(ctx context.Context) error {
	_, err := c.Work(ctx, &demopb.WorkRequest{})
	return err
}

func (c caller) watch(ctx context.Context) error {
	s, err := c.Watch(ctx, &demopb.WatchRequest{})
	if err != nil {
		return err
	}
	return end(s.Recv())
}

func (c caller) exchange(ctx context.Context) error {
	s, err := c.Exchange(ctx)
	if err != nil {
		return err
	}
	return end(s.Recv())
}

// end returns what a stream without messages ended with.
func end(_ any, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func newBreaker(t testing.TB, c breaker.Config) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newThrottle(t testing.TB, c throttle.Config) *throttle.Throttle {
	t.Helper()
	th, err := throttle.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return th
}

// dialOptions are those of a client with a breaker, a throttle, or both.
func dialOptions(t testing.TB, c interceptors.ClientConfig) []grpc.DialOption {
	t.Helper()
	opts, err := interceptors.Client(c)
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

// show registers collectors.
func show(t testing.TB, r *prometheus.Registry, cs ...prometheus.Collector) *prometheus.Registry {
	t.Helper()
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func breakers(t testing.TB, bs ...*breaker.Breaker) *metrics.Collector {
	t.Helper()
	c, err := metrics.NewCollector(metrics.Sources(bs...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func throttles(t testing.TB, ts ...*throttle.Throttle) *metrics.Collector {
	t.Helper()
	c, err := metrics.NewCollector(metrics.Sources(ts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantError makes calls that must end with an error.
func wantError(t *testing.T, calls int, call func(context.Context) error, is func(error) bool) {
	t.Helper()
	for i := range calls {
		if err := call(t.Context()); !is(err) {
			t.Fatalf("call %d of %d: got %v, want another error", i+1, calls, err)
		}
	}
}
