package interceptors_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/limit"
)

const work = demopb.DemoService_Work_FullMethodName

var workInfo = &grpc.UnaryServerInfo{FullMethod: work}

// A service does what each test wants.
type service struct {
	demopb.UnimplementedDemoServiceServer
	work     func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error)
	exchange func(demopb.DemoService_ExchangeServer) error
}

func (s *service) Work(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	if s.work == nil {
		return &demopb.WorkResponse{Message: req.GetName()}, nil
	}
	return s.work(ctx, req)
}

func (s *service) Exchange(stream demopb.DemoService_ExchangeServer) error {
	if s.exchange == nil {
		<-stream.Context().Done()
		return nil
	}
	return s.exchange(stream)
}

func (s *service) register(r grpc.ServiceRegistrar) {
	demopb.RegisterDemoServiceServer(r, s)
	healthpb.RegisterHealthServer(r, health.NewServer())
}

// works returns a service whose calls take d.
func works(d time.Duration) *service {
	return &service{work: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		select {
		case <-time.After(d):
			return &demopb.WorkResponse{}, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}}
}

// A rig is a server in memory and a connection to it.
type rig struct {
	demopb.DemoServiceClient
	server *grpc.Server
	conn   *grpc.ClientConn
}

// start runs svc until the test is over. It can be used in a synctest bubble.
func start(tb testing.TB, svc *service, serverOpts []grpc.ServerOption, dialOpts ...grpc.DialOption) *rig {
	tb.Helper()
	p := grpctest.Start(tb, svc.register, grpctest.ServerOptions(serverOpts...), grpctest.DialOptions(dialOpts...))
	return &rig{demopb.NewDemoServiceClient(p.Conn), p.Server, p.Conn}
}

func unaryServers(i ...grpc.UnaryServerInterceptor) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(i...)}
}

// fixed is a limit that stays as it is.
type fixed int

func (f fixed) Limit() int              { return int(f) }
func (f fixed) Update(limit.Window) int { return int(f) }

func newGate(tb testing.TB, opts ...admit.Option) *admit.Gate {
	tb.Helper()
	g, err := admit.New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// strict is a gate that lets n calls run and refuses the others at once.
func strict(tb testing.TB, n int) *admit.Gate {
	tb.Helper()
	return newGate(tb, admit.WithLimit(fixed(n)), admit.WithoutQueue())
}

// fill takes all permits of a gate until the test is over.
func fill(tb testing.TB, g *admit.Gate) {
	tb.Helper()
	for g.Stats().InFlight < g.Stats().Limit {
		hold(tb, g)
	}
}

// hold takes a permit, and returns what gives it back.
func hold(tb testing.TB, g *admit.Gate) (release func()) {
	tb.Helper()
	p, err := g.Acquire(context.Background(), admit.Call{})
	if err != nil {
		tb.Fatal(err)
	}
	release = func() { p.Release(admit.Ignored) }
	tb.Cleanup(release)
	return release
}

// atRest checks that a gate is empty and that the calls which ended are as many
// as wanted: ignored, successes, overloads.
func atRest(tb testing.TB, g *admit.Gate, want ...uint64) {
	tb.Helper()
	s := g.Stats()
	if s.InFlight != 0 || s.Queue != 0 {
		tb.Errorf("gate at rest: got %d in flight and %d queued, want 0 and 0", s.InFlight, s.Queue)
	}
	if want != nil && s.Ended != [3]uint64(want) {
		tb.Errorf("ended (ignored, success, overload): got %v, want %v", s.Ended, want)
	}
}

func wantCode(tb testing.TB, err error, want codes.Code) {
	tb.Helper()
	if got := status.Code(err); got != want {
		tb.Errorf("code: got %v (%v), want %v", got, err, want)
	}
}

// A callStream is what gRPC keeps in the context of a call on a server.
type callStream struct{ trailer metadata.MD }

func (*callStream) Method() string               { return work }
func (*callStream) SetHeader(metadata.MD) error  { return nil }
func (*callStream) SendHeader(metadata.MD) error { return nil }
func (s *callStream) Trailer() metadata.MD       { return s.trailer }
func (s *callStream) SetTrailer(md metadata.MD) error {
	s.trailer = metadata.Join(s.trailer, md)
	return nil
}

// A serverStream is a grpc.ServerStream without a network.
type serverStream struct {
	grpc.ServerStream
	ctx     context.Context
	trailer metadata.MD
}

func (s *serverStream) Context() context.Context { return s.ctx }
func (s *serverStream) SetTrailer(md metadata.MD) {
	s.trailer = metadata.Join(s.trailer, md)
}

func succeed(context.Context, any) (any, error) { return "done", nil }
