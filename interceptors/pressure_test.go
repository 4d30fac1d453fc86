package interceptors_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// A strain is a pressure that is set by hand.
type strain struct {
	level  atomic.Uint32
	signal string
}

func (s *strain) Pressure() (level uint8, signal string) { return uint8(s.level.Load()), s.signal }

// under makes gates that refuse every call for a signal.
func under(signal string) func(*testing.T) *admit.Gate {
	return func(t *testing.T) *admit.Gate {
		s := &strain{signal: signal}
		s.level.Store(3)
		return newGate(t, admit.WithPressure(s))
	}
}

// A tap refuses for pressure before the request is read, by class, and health checks pass.
func TestTapRefusesForPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &strain{signal: "memory"}
		gate := newGate(t, admit.WithPressure(s))
		tap := interceptors.Tap(gate, interceptors.WithClassFor(admit.Critical, interceptors.Methods("/shop.Checkout/")))
		for _, c := range []struct {
			level  uint32
			method string
			want   codes.Code
		}{
			{0, "/shop.Feed/Get", codes.OK},
			{1, "/shop.Feed/Get", codes.OK},
			{2, "/shop.Feed/Get", codes.Unavailable},
			{2, "/shop.Checkout/Buy", codes.OK},
			{3, "/shop.Checkout/Buy", codes.Unavailable},
			{3, "/grpc.health.v1.Health/Check", codes.OK},
			{0, "/shop.Checkout/Buy", codes.OK},
		} {
			s.level.Store(c.level)
			_, err := tap(context.Background(), tapInfo(c.method))
			wantCode(t, err, c.want)
			if r, ok := interceptors.RefusalFrom(err); ok != (err != nil) || ok && r.Reason != "memory_pressure" {
				t.Errorf("level %d, %s: got refusal %+v, %v, want one for memory_pressure", c.level, c.method, r, ok)
			}
		}
	})
}

// Over the wire a refusal names its reason, and pressure opens no new streams but keeps
// those that are open.
func TestPressureOverTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &strain{signal: "memory"}
		calls, streams := newGate(t, admit.WithPressure(s)), newGate(t, admit.WithPressure(s), admit.WithName("streams"), admit.WithLimit(fixed(10)))
		opts, err := interceptors.Server(interceptors.ServerConfig{Gate: calls, Streams: streams})
		if err != nil {
			t.Fatal(err)
		}
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, mirror{}) }, grpctest.ServerOptions(opts...))
		client := demopb.NewDemoServiceClient(p.Conn)
		open, err := client.Exchange(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		exchange := func() {
			t.Helper()
			if err := errors.Join(open.Send(&demopb.ExchangeRequest{}), func() error { _, err := open.Recv(); return err }()); err != nil {
				t.Errorf("the open stream: got %v, want an answer", err)
			}
		}
		exchange()
		s.level.Store(2)
		exchange()
		_, err = client.Work(t.Context(), &demopb.WorkRequest{})
		wantPressure(t, err, "default")
		another, err := client.Exchange(t.Context())
		if err == nil {
			_, err = another.Recv()
		}
		wantPressure(t, err, "streams")
		s.level.Store(0)
		if _, err = client.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
			t.Errorf("without pressure: got %v, want an answer", err)
		}
		if err := open.CloseSend(); err != nil {
			t.Error(err)
		}
		_, _ = open.Recv()
	})
}

func wantPressure(t *testing.T, err error, gate string) {
	t.Helper()
	r, ok := interceptors.RefusalFrom(err)
	if !ok || r.Reason != "memory_pressure" || r.Gate != gate || r.RetryAfter <= 0 || !r.Remote || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v (%+v), want UNAVAILABLE for memory_pressure of the gate %q, with a delay", err, r, gate)
	}
}

// mirror answers each message of a stream.
type mirror struct {
	demopb.UnimplementedDemoServiceServer
}

func (mirror) Work(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return &demopb.WorkResponse{}, nil
}

func (mirror) Exchange(s grpc.BidiStreamingServer[demopb.ExchangeRequest, demopb.ExchangeResponse]) error {
	for {
		if _, err := s.Recv(); err != nil {
			return nil // the client has gone
		}
		if err := s.Send(&demopb.ExchangeResponse{}); err != nil {
			return err
		}
	}
}
