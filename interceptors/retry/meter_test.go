package retry_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/internal/grpctest"
)

// A brittle is a server that fails a number of calls, and then serves.
type brittle struct {
	demopb.UnimplementedDemoServiceServer
	demopb.UnimplementedStreamServiceServer

	fails atomic.Int64
}

func (f *brittle) answer() error {
	if f.fails.Add(-1) >= 0 {
		return status.Error(codes.Unavailable, "flaky")
	}
	return nil
}

func (f *brittle) Work(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return &demopb.WorkResponse{}, f.answer()
}

func (f *brittle) Subscribe(grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	return f.answer()
}

// A meter counts each call once, and each attempt after its first one as a retry, for calls and
// for streams, through a throttle, a gate and other parts.
func TestMeterCountsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := retry.NewMeter("to-demo")
		dial, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}, Retries: meter, Gate: newGate(t)})
		if err != nil {
			t.Fatal(err)
		}
		server := &brittle{}
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
			demopb.RegisterDemoServiceServer(r, server)
			demopb.RegisterStreamServiceServer(r, server)
		}, grpctest.DialOptions(dial...))
		if got := meter.Stats(); len(got) != 0 {
			t.Errorf("before any call: got %v, want nothing", got)
		}
		for range 4 { // served at once
			if _, err := demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		server.fails.Store(2) // served by the third attempt
		if _, err := demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{}); err != nil {
			t.Fatal(err)
		}
		server.fails.Store(100) // not served by three attempts
		if _, err := demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{}); err == nil {
			t.Fatal("a server that is down: got no error")
		}
		server.fails.Store(1)
		stream, err := demopb.NewStreamServiceClient(p.Conn).Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = stream.Recv()
		got := meter.Stats()
		if len(got) != 2 {
			t.Fatalf("methods: got %v, want two", got)
		}
		if s := got[0]; s.Method != work || s.Calls != 6 || s.Retries != 4 || s.Transparent != 0 || s.Target == "" {
			t.Errorf("calls: got %+v, want 6 calls and 4 retries of %s", s, work)
		}
		if s := got[1]; s.Calls != 1 || s.Retries != 1 {
			t.Errorf("streams: got %+v, want 1 call and 1 retry", s)
		}
	})
}

// A nil or zero meter counts nothing and harms nothing. Client refuses a zero one.
func TestMeterWithoutAName(t *testing.T) {
	for _, m := range []*retry.Meter{nil, {}} {
		if got := m.DialOptions(&retry.Config{}); len(got) != 0 || m.Name() != "" || m.Stats() != nil || m.Budgets() != nil {
			t.Errorf("a zero meter: got %d options, %q, %v and %v, want nothing", len(got), m.Name(), m.Stats(), m.Budgets())
		}
	}
	if _, err := interceptors.Client(interceptors.ClientConfig{Retries: &retry.Meter{}}); err == nil {
		t.Error("Client with a zero meter: got no error, want one")
	}
}

// BenchmarkMeter is a call with and without a meter.
func BenchmarkMeter(b *testing.B) {
	for name, c := range map[string]interceptors.ClientConfig{
		"without": {Retry: &retry.Config{}},
		"with":    {Retry: &retry.Config{}, Retries: retry.NewMeter("to-demo")},
	} {
		b.Run(name, func(b *testing.B) {
			dial, err := interceptors.Client(c)
			if err != nil {
				b.Fatal(err)
			}
			p := grpctest.Start(b, func(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, &brittle{}) }, grpctest.DialOptions(dial...))
			client := demopb.NewDemoServiceClient(p.Conn)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Work(context.Background(), &demopb.WorkRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
