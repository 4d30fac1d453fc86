package streamcredit_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// A feed has two methods for one function:
//
//	rpc Watch(SubscribeRequest) returns (stream SubscribeResponse);             // as it was
//	rpc WatchPaced(stream SubscribeRequest) returns (stream SubscribeResponse); // with credit
//
// Both have the same messages. Old clients are never sent the field credit.
type feed struct{}

// events does the work of both methods. send blocks until an event may be sent.
func (feed) events(
	ctx context.Context, query *demopb.SubscribeRequest, send func(context.Context, *demopb.SubscribeResponse) error,
) error {
	for n := range query.GetCount() {
		if err := send(ctx, &demopb.SubscribeResponse{Number: n + 1}); err != nil {
			return err
		}
	}
	return nil
}

// Watch is for clients without credit. Only HTTP/2 slows it down.
func (f feed) Watch(query *demopb.SubscribeRequest, stream grpc.ServerStreamingServer[demopb.SubscribeResponse]) error {
	return f.events(stream.Context(), query, func(_ context.Context, e *demopb.SubscribeResponse) error { return stream.Send(e) })
}

// WatchPaced sends an event when its client asks for one.
func (f feed) WatchPaced(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	out, query, err := streamcredit.ServeSend(stream)
	if err != nil {
		return err
	}
	if err := f.events(stream.Context(), query, out.Send); err != nil {
		return err
	}
	return out.Finish(stream.Context())
}

// Credit cannot reach a server-streaming method. The method stays for old clients, and a
// bidirectional method beside it has credit. One function does the work of both.
func Example_secondMethod() {
	conn, stop := serve(registerFeed)
	defer stop()
	ctx := context.Background()

	old, err := watchFeed(ctx, conn, &demopb.SubscribeRequest{Count: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	for event, err := old.Recv(); err == nil; event, err = old.Recv() {
		fmt.Println("without credit:", event.GetNumber())
	}

	in, err := streamcredit.DialReceive(ctx, watchPaced(conn), streamcredit.WithSetup(&demopb.SubscribeRequest{Count: 2}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer in.Close()
	for event, err := range in.All(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("with credit:", event.GetNumber())
	}
	// Output:
	// without credit: 1
	// without credit: 2
	// with credit: 1
	// with credit: 2
}

// protoc generates the rest.

const feedService = "weir.test.Feed"

func registerFeed(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: feedService, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Watch", ServerStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
				query := new(demopb.SubscribeRequest)
				if err := stream.RecvMsg(query); err != nil {
					return err
				}
				s := &grpc.GenericServerStream[demopb.SubscribeRequest, demopb.SubscribeResponse]{ServerStream: stream}
				return srv.(feed).Watch(query, s)
			}},
			{StreamName: "WatchPaced", ServerStreams: true, ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
				s := &grpc.GenericServerStream[demopb.SubscribeRequest, demopb.SubscribeResponse]{ServerStream: stream}
				return srv.(feed).WatchPaced(s)
			}},
		},
	}, feed{})
}

func watchFeed(ctx context.Context, conn *grpc.ClientConn, query *demopb.SubscribeRequest,
) (grpc.ServerStreamingClient[demopb.SubscribeResponse], error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+feedService+"/Watch")
	if err != nil {
		return nil, err
	}
	s := &grpc.GenericClientStream[demopb.SubscribeRequest, demopb.SubscribeResponse]{ClientStream: stream}
	if err := s.SendMsg(query); err != nil {
		return nil, err
	}
	return s, s.CloseSend()
}

func watchPaced(conn *grpc.ClientConn) func(
	context.Context, ...grpc.CallOption,
) (grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error) {
	return func(ctx context.Context, opts ...grpc.CallOption) (
		grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error,
	) {
		desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
		stream, err := conn.NewStream(ctx, desc, "/"+feedService+"/WatchPaced", opts...)
		if err != nil {
			return nil, err
		}
		return &grpc.GenericClientStream[demopb.SubscribeRequest, demopb.SubscribeResponse]{ClientStream: stream}, nil
	}
}
