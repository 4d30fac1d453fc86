package grpctest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// demo answers each call at once, or after the cost that it was given.
type demo struct {
	demopb.UnimplementedDemoServiceServer

	linger time.Duration // how long Work takes to notice that it was cancelled
	ended  atomic.Int32  // handlers of Work that have returned
}

func (d *demo) Work(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	defer d.ended.Add(1)
	select {
	case <-time.After(time.Duration(req.GetCostMicros()) * time.Microsecond):
		return &demopb.WorkResponse{Message: "done: " + req.GetName()}, nil
	case <-ctx.Done():
		time.Sleep(d.linger)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (d *demo) Watch(req *demopb.WatchRequest, stream demopb.DemoService_WatchServer) error {
	for i := range req.GetCount() {
		if err := stream.Send(&demopb.WatchResponse{Number: i + 1}); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) Exchange(stream demopb.DemoService_ExchangeServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&demopb.ExchangeResponse{Text: req.GetText()}); err != nil {
			return err
		}
	}
}

func (d *demo) register(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, d) }

// work makes one call of the given cost and returns its answer.
func work(t *testing.T, conn grpc.ClientConnInterface, name string, cost time.Duration) string {
	t.Helper()
	req := &demopb.WorkRequest{Name: name, CostMicros: cost.Microseconds()}
	res, err := demopb.NewDemoServiceClient(conn).Work(t.Context(), req)
	if err != nil {
		t.Fatalf("Work(%q) = %v, want no error", name, err)
	}
	return res.GetMessage()
}

// exercise makes one call of each kind.
func exercise(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	if got, want := work(t, conn, "a", 0), "done: a"; got != want {
		t.Errorf("Work answered %q, want %q", got, want)
	}
	client := demopb.NewDemoServiceClient(conn)
	watch, err := client.Watch(t.Context(), &demopb.WatchRequest{Count: 3})
	if err != nil {
		t.Fatalf("Watch = %v, want no error", err)
	}
	for want := int32(1); want <= 3; want++ {
		if res, err := watch.Recv(); err != nil || res.GetNumber() != want {
			t.Fatalf("Watch sent %d, %v; want %d", res.GetNumber(), err, want)
		}
	}
	if _, err := watch.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("Watch ended with %v, want EOF", err)
	}
	exchange(t, client)
}

func exchange(t *testing.T, client demopb.DemoServiceClient) {
	t.Helper()
	stream, err := client.Exchange(t.Context())
	if err != nil {
		t.Fatalf("Exchange = %v, want no error", err)
	}
	for i := range 3 {
		want := fmt.Sprint("message ", i)
		if err := stream.Send(&demopb.ExchangeRequest{Text: want}); err != nil {
			t.Fatalf("Send = %v, want no error", err)
		}
		if res, err := stream.Recv(); err != nil || res.GetText() != want {
			t.Fatalf("Exchange answered %q, %v; want %q", res.GetText(), err, want)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatalf("CloseSend = %v, want no error", err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("Exchange ended with %v, want EOF", err)
	}
}

func TestCallsOfEachKind(t *testing.T) {
	for name, opts := range map[string][]grpctest.Option{
		"in memory":   nil,
		"over socket": {grpctest.OverSocket()},
	} {
		t.Run(name, func(t *testing.T) {
			p := grpctest.Start(t, new(demo).register, opts...)
			exercise(t, p.Conn)
			exercise(t, p.Dial(t))
		})
	}
}

func TestAnHourPassesAtOnce(t *testing.T) {
	before := time.Now()
	synctest.Test(t, func(t *testing.T) {
		p := grpctest.Start(t, new(demo).register)
		exercise(t, p.Conn)

		start := time.Now()
		work(t, p.Conn, "long", time.Hour)
		if got := time.Since(start); got != time.Hour {
			t.Errorf("a call of an hour took %v of the bubble's time, want %v", got, time.Hour)
		}

		// An idle client gives up its connection after half an hour; the next
		// call must find its way back.
		time.Sleep(time.Hour)
		exercise(t, p.Conn)
	})
	// Not a timed test: an hour that really passed would have met go test's own limit.
	if got := time.Since(before); got > time.Hour/2 {
		t.Errorf("two hours in the bubble took %v, want an instant", got)
	}
}

func TestADeadlineIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := grpctest.Start(t, new(demo).register)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := demopb.NewDemoServiceClient(p.Conn).Work(ctx, &demopb.WorkRequest{CostMicros: time.Minute.Microseconds()})
		if got := status.Code(err); got != codes.DeadlineExceeded {
			t.Errorf("Work = %v, want %v", err, codes.DeadlineExceeded)
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("the deadline came after %v, want %v", got, time.Second)
		}
	})
}

// The end of a test cancels the calls that still run, and waits until their
// handlers have returned.
func TestTheEndWaitsForHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &demo{linger: time.Second}
		t.Cleanup(func() { // runs after those of Start
			if got := d.ended.Load(); got != 1 {
				t.Errorf("handlers ended when the server had stopped = %d, want 1", got)
			}
		})
		p := grpctest.Start(t, d.register)
		go func() { // the clean-up of p ends it
			_, _ = demopb.NewDemoServiceClient(p.Conn).
				Work(context.WithoutCancel(t.Context()), &demopb.WorkRequest{CostMicros: time.Hour.Microseconds()})
		}()
		synctest.Wait() // until the handler waits for its hour
		if got := d.ended.Load(); got != 0 {
			t.Errorf("handlers ended while the test ran = %d, want 0", got)
		}
	})
}

func TestOptionsReachTheServerAndTheClient(t *testing.T) {
	var seen []string
	server := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		seen = append(seen, "server")
		return h(ctx, req)
	}
	client := func(ctx context.Context, m string, req, res any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		seen = append(seen, "client")
		return call(ctx, m, req, res, cc, opts...)
	}
	p := grpctest.Start(t, new(demo).register,
		grpctest.ServerOptions(grpc.UnaryInterceptor(server)),
		grpctest.DialOptions(grpc.WithUnaryInterceptor(client)))
	work(t, p.Conn, "a", 0)
	work(t, p.Dial(t), "b", 0) // the options of the first client are not those of the second
	if got, want := fmt.Sprint(seen), "[client server server]"; got != want {
		t.Errorf("interceptors that saw two calls = %v, want %v", got, want)
	}
}

func TestOverSocketHasARealAddress(t *testing.T) {
	p := grpctest.Start(t, new(demo).register, grpctest.OverSocket())
	host, port, err := net.SplitHostPort(p.Addr)
	if err != nil || host != "127.0.0.1" || port == "0" {
		t.Errorf("Addr = %q, want 127.0.0.1 and a port", p.Addr)
	}
}

func TestNetConnReachesTheServer(t *testing.T) {
	for name, opts := range map[string][]grpctest.Option{
		"in memory":   nil,
		"over socket": {grpctest.OverSocket()},
	} {
		t.Run(name, func(t *testing.T) {
			conn := grpctest.Start(t, new(demo).register, opts...).NetConn(t)
			if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
				t.Fatalf("writing the preface = %v, want no error", err)
			}
			// A frame's header is nine bytes; the fourth is its type. 4 is SETTINGS.
			header := make([]byte, 9)
			if _, err := io.ReadFull(conn, header); err != nil || header[3] != 4 {
				t.Errorf("the server began with % x, %v; want a SETTINGS frame", header, err)
			}
		})
	}
}

func TestTheTestMayStopItself(t *testing.T) {
	for name, stop := range map[string]func(*grpctest.Pair){
		"Stop":         func(p *grpctest.Pair) { p.Server.Stop() },
		"GracefulStop": func(p *grpctest.Pair) { p.Server.GracefulStop() },
		"Close":        func(p *grpctest.Pair) { _ = p.Conn.Close() },
	} {
		t.Run(name, func(t *testing.T) { stop(grpctest.Start(t, new(demo).register)) })
	}
}
