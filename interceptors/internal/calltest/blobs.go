package calltest

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Blobs is the full name of a method that takes and returns a [Blob].
const Blobs = "/weirtest.Blobs/Get"

// A Blob is a message of any size.
type Blob = wrapperspb.BytesValue

// ServeBlobs registers a method that takes and returns bytes, in a usual and a vital service.
func ServeBlobs(get func(ctx context.Context, req *Blob) (*Blob, error)) func(grpc.ServiceRegistrar) {
	return func(r grpc.ServiceRegistrar) {
		for _, service := range []string{"weirtest.Blobs", "weirtest.Vital"} {
			r.RegisterService(&grpc.ServiceDesc{
				ServiceName: service, HandlerType: (*any)(nil),
				Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: func(
					srv any, ctx context.Context, dec func(any) error, via grpc.UnaryServerInterceptor,
				) (any, error) {
					req := new(Blob)
					if err := dec(req); err != nil {
						return nil, err
					}
					return via(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + service + "/Get"},
						func(ctx context.Context, _ any) (any, error) { return get(ctx, req) })
				}}},
			}, struct{}{})
		}
	}
}

// AskAndNotRead makes a call and does not read the response.
func AskAndNotRead(ctx context.Context, tb testing.TB, conn *grpc.ClientConn) {
	tb.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, Blobs)
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.SendMsg(&Blob{}); err != nil {
		tb.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		tb.Fatal(err)
	}
}
