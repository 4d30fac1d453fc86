package streamcredit_test

import (
	"context"
	"math"
	"os"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

func TestMain(m *testing.M) {
	if os.Getenv("WEIR_BENCH_SERVE") != "" {
		serveElsewhere()
	}
	if addr := os.Getenv("WEIR_STOPPED_CLIENT"); addr != "" {
		receiveElsewhere(addr)
	}
	goleak.VerifyTestMain(m)
}

// The streams of a server, and what generated code calls them.
type (
	subscribeServer = grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]
	uploadServer    = grpc.BidiStreamingServer[demopb.UploadRequest, demopb.UploadResponse]
	convertServer   = grpc.BidiStreamingServer[demopb.ConvertRequest, demopb.ConvertResponse]
)

// handlers is a StreamService made of functions.
type handlers struct {
	demopb.UnimplementedStreamServiceServer

	subscribe func(subscribeServer) error
	upload    func(uploadServer) error
	convert   func(convertServer) error
}

func (h handlers) Subscribe(s subscribeServer) error { return h.subscribe(s) }
func (h handlers) Upload(s uploadServer) error       { return h.upload(s) }
func (h handlers) Convert(s convertServer) error     { return h.convert(s) }

// start serves h and returns a client of it.
func (h handlers) start(t testing.TB, opts ...grpctest.Option) demopb.StreamServiceClient {
	t.Helper()
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, h) }, opts...)
	return demopb.NewStreamServiceClient(p.Conn)
}

// event is the n-th element of a subscription.
func event(n int) *demopb.SubscribeResponse { return &demopb.SubscribeResponse{Number: int64(n)} }

// frames is a CreditStream made of a function.
type frames struct {
	creditpb.UnimplementedCreditStreamServer

	channel func(grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error
}

func (f frames) Channel(s grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
	return f.channel(s)
}

var allFeatures = []creditpb.Feature{1, 2, 3, 4}

// helloFrom returns what a peer says first that knows everything.
func helloFrom(o *creditpb.Open) *creditpb.Control {
	o.MinVersion, o.MaxVersion, o.Features = 1, 1, allFeatures
	return &creditpb.Control{Kind: &creditpb.Control_Open{Open: o}}
}

// deaf is a server without weir that opens with much demand and never reads again.
func deaf(t *testing.T) demopb.StreamServiceClient {
	return handlers{
		upload: func(stream uploadServer) error {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			_ = stream.Send(&demopb.UploadResponse{Credit: helloFrom(&creditpb.Open{WillReceive: true, Initial: &creditpb.Request{N: math.MaxInt64}})})
			<-stream.Context().Done()
			return nil
		},
		convert: func(stream convertServer) error {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			_ = stream.Send(&demopb.ConvertResponse{Credit: helloFrom(&creditpb.Open{WillReceive: true, WillSend: true, Initial: &creditpb.Request{N: 1 << 40}})})
			<-stream.Context().Done()
			return nil
		},
	}.start(t)
}

// stageOf is a service of which each handler runs the two ends of its stream.
func stageOf(t *testing.T, opts []streamcredit.DuplexOption, run func(both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], ctx context.Context) error) demopb.StreamServiceClient {
	return handlers{convert: func(stream convertServer) error {
		both, _, err := streamcredit.Serve(stream, opts...)
		if err != nil {
			return err
		}
		return run(both, stream.Context())
	}}.start(t)
}

// wrapped are the options of a connection with interceptors that wrap the streams of its ends.
func wrapped(client func(grpc.ClientStream) grpc.ClientStream, server func(grpc.ServerStream) grpc.ServerStream) []grpctest.Option {
	return []grpctest.Option{
		grpctest.ServerOptions(grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(srv, server(ss))
		})),
		grpctest.DialOptions(grpc.WithStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			cs, err := streamer(ctx, desc, cc, method, opts...)
			if err != nil {
				return nil, err
			}
			return client(cs), nil
		})),
	}
}
