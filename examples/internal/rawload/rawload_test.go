package rawload_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/rawload"
	"github.com/weir-go/weir/internal/grpctest"
)

// A counter counts what reaches a real server.
type counter struct {
	demopb.UnimplementedDemoServiceServer
	calls, wrong atomic.Int64
	answer       func(n int64) error
}

func (c *counter) Work(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	if _, ok := ctx.Deadline(); !ok || req.GetName() != "raw" {
		c.wrong.Add(1)
	}
	return &demopb.WorkResponse{Message: "done"}, c.answer(c.calls.Add(1))
}

func load(t *testing.T, c *counter, opts ...grpctest.Option) *rawload.Load {
	t.Helper()
	p := grpctest.Start(t, func(s grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(s, c) },
		append(opts, grpctest.OverSocket())...)
	return &rawload.Load{
		Addr: p.Addr, Method: demopb.DemoService_Work_FullMethodName, Message: message("raw"), Conns: 2,
		Rate: 2000, Patience: 10 * time.Second, Warm: 50 * time.Millisecond, Length: 200 * time.Millisecond, Seed: 1,
	}
}

func run(t *testing.T, l *rawload.Load) rawload.Result {
	t.Helper()
	got, err := l.Run(t.Context())
	if err != nil {
		t.Fatalf("Run: got %v, want no error", err)
	}
	return got
}

// grpc-go understands the calls, and their outcomes are told apart.
func TestOutcomes(t *testing.T) {
	c := &counter{answer: func(n int64) error {
		return []error{
			nil, status.Error(codes.Unavailable, "full"), status.Error(codes.ResourceExhausted, "quota"),
			status.Error(codes.Internal, "broken"),
		}[n%4]
	}}
	l := load(t, c)
	l.Patience = time.Second // of which Run waits two
	var edges int
	l.Edge = func() { edges++ }
	got := run(t, l)
	if c.wrong.Load() != 0 {
		t.Errorf("calls that arrived without their deadline or message: got %d, want none", c.wrong.Load())
	}
	if edges != 2 {
		t.Errorf("edges of the window: got %d, want 2", edges)
	}
	if all := int64(got.Offered); all == 0 || all > c.calls.Load() {
		t.Errorf("calls in the window: got %d of %d that arrived, want some, not all", all, c.calls.Load())
	}
	quarter := got.Offered / 4
	for what, n := range map[string]int{"good": got.Good, "half of the refused": got.Refused / 2, "lost": got.Lost} {
		if off := n - quarter; off > quarter/4+2 || off < -quarter/4-2 { // the warm-up shifts the turns a little
			t.Errorf("%s: got %d of %d, want about a quarter", what, n, got.Offered)
		}
	}
	if got.P50 <= 0 || got.P99 < got.P50 || got.NoP50 <= 0 || got.NoP99 < got.NoP50 {
		t.Errorf("latencies: got %v, %v, %v, %v, want them positive and in order", got.P50, got.P99, got.NoP50, got.NoP99)
	}
}

// A server that does not answer loses the calls and does not slow arrivals down.
func TestSilence(t *testing.T) {
	c := &counter{}
	release := make(chan struct{})
	c.answer = func(int64) error { <-release; return nil }
	l := load(t, c)
	l.Patience = 50 * time.Millisecond
	got := run(t, l)
	close(release)
	if got.Good != 0 || got.Refused != 0 || got.Lost != got.Offered || got.Offered < 200 {
		t.Errorf("calls to a silent server: got %+v, want some 400, all lost", got)
	}
}

// The server may say what it wants of a connection: all calls arrive all the same.
func TestBusyConnection(t *testing.T) {
	c := &counter{answer: func(int64) error { return nil }}
	l := load(t, c, grpctest.ServerOptions(grpc.MaxConcurrentStreams(1<<20), grpc.InitialConnWindowSize(1<<16)))
	l.Message = message(string(make([]byte, 4096))) // many times the window of the connection
	l.Patience = 2 * time.Second
	if got := run(t, l); got.Good != got.Offered {
		t.Errorf("calls with large messages: got %+v, want all good", got)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	c := &counter{answer: func(int64) error { return nil }}
	l := load(t, c)
	l.Length = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Run(ctx); err == nil {
		t.Error("Run after its context ended: got no error, want the context's")
	}
}

func TestNoServer(t *testing.T) {
	l := &rawload.Load{Addr: "127.0.0.1:1", Conns: 1, Rate: 1}
	if _, err := l.Run(t.Context()); err == nil {
		t.Error("Run without a server: got no error, want one")
	}
}
