package calltest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
)

// Work is the full name of the unary method of the demo service.
const Work = demopb.DemoService_Work_FullMethodName

// A Service is a demo service with handlers that a test sets. Without OnWork, Work succeeds
// at once. Without OnExchange, Exchange lasts until its context ends.
type Service struct {
	demopb.UnimplementedDemoServiceServer
	OnWork     func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error)
	OnExchange func(demopb.DemoService_ExchangeServer) error
}

// Work implements demopb.DemoServiceServer.
func (s *Service) Work(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	if s.OnWork == nil {
		return &demopb.WorkResponse{Message: req.GetName()}, nil
	}
	return s.OnWork(ctx, req)
}

// Exchange implements demopb.DemoServiceServer.
func (s *Service) Exchange(stream demopb.DemoService_ExchangeServer) error {
	if s.OnExchange == nil {
		<-stream.Context().Done()
		return nil
	}
	return s.OnExchange(stream)
}

// Register registers the service, and a health service.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	demopb.RegisterDemoServiceServer(r, s)
	healthpb.RegisterHealthServer(r, health.NewServer())
}

// Works returns a service with unary calls that take d.
func Works(d time.Duration) *Service {
	return &Service{OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		select {
		case <-time.After(d):
			return &demopb.WorkResponse{}, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}}
}

// A Rig is a server in memory and a connection to it.
type Rig struct {
	demopb.DemoServiceClient
	Server *grpc.Server
	Conn   *grpc.ClientConn
}

// Start runs svc until the test is over. It can be used in a synctest bubble.
func Start(tb testing.TB, svc *Service, serverOpts []grpc.ServerOption, dialOpts ...grpc.DialOption) *Rig {
	tb.Helper()
	p := grpctest.Start(tb, svc.Register, grpctest.ServerOptions(serverOpts...), grpctest.DialOptions(dialOpts...))
	return &Rig{demopb.NewDemoServiceClient(p.Conn), p.Server, p.Conn}
}

// Does returns a service with unary calls that run f.
func Does(f func(context.Context) error) *Service {
	return &Service{OnWork: func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		return &demopb.WorkResponse{}, f(ctx)
	}}
}

// Exponential returns a service with unary calls that take an exponentially distributed
// time.
func Exponential(mean time.Duration) *Service {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 4))
	return &Service{OnWork: func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		mu.Lock()
		d := time.Duration(r.ExpFloat64() * float64(mean))
		mu.Unlock()
		return Works(d).OnWork(ctx, req)
	}}
}

// DrainStream opens a stream and reads it to its end.
func DrainStream(ctx context.Context, r *Rig) error {
	s, err := r.Exchange(ctx)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Echo answers each message, and ends when the client has ended or says so.
func Echo(s demopb.DemoService_ExchangeServer) error {
	for {
		req, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case req.GetText() == "fail":
			return status.Error(codes.DataLoss, "")
		}
		if err := s.Send(&demopb.ExchangeResponse{Text: req.GetText()}); err != nil {
			return err
		}
	}
}
