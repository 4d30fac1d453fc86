package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/examples/demopb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// serve runs a server in memory and returns a connection to it.
func serve(register func(grpc.ServiceRegistrar)) (conn *grpc.ClientConn, stop func()) {
	lis := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	register(server)
	served := make(chan error)
	go func() { served <- server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		log.Fatal(err)
	}
	return conn, func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}
}

// The server sends what the client asks for, as fast as the client consumes it.
func Example() {
	count := func(stream subscribeServer) error {
		out, query, err := streamcredit.ServeSend(stream)
		if err != nil {
			return err
		}
		for n := range query.GetCount() {
			if err := out.Send(stream.Context(), &demopb.SubscribeResponse{Number: n + 1}); err != nil {
				return err
			}
		}
		return out.Finish(stream.Context())
	}
	conn, stop := serve(func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, handlers{subscribe: count})
	})
	defer stop()

	ctx := context.Background()
	in, err := streamcredit.DialReceive(ctx, demopb.NewStreamServiceClient(conn).Subscribe,
		streamcredit.WithSetup(&demopb.SubscribeRequest{Count: 3}))
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	for event, err := range in.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.GetNumber())
	}
	// Output:
	// 1
	// 2
	// 3
}

// The client sends what the server asks for. Finish returns when the server has consumed
// everything, with the status of its handler.
func ExampleDialSend() {
	store := func(stream uploadServer) error {
		in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(8), streamcredit.WithByteWindow(1<<20))
		if err != nil {
			return err
		}
		stored := 0
		for part, err := range in.All(stream.Context()) {
			if err != nil {
				return err
			}
			stored += len(part.GetPayload())
		}
		fmt.Println("stored", stored, "bytes")
		return nil
	}
	conn, stop := serve(func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, handlers{upload: store})
	})
	defer stop()

	ctx := context.Background()
	out, err := streamcredit.DialSend(ctx, demopb.NewStreamServiceClient(conn).Upload)
	if err != nil {
		log.Fatal(err)
	}
	for range 100 {
		if err := out.Send(ctx, &demopb.UploadRequest{Payload: make([]byte, 1000)}); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("finished:", out.Finish(ctx))
	// Output:
	// stored 100000 bytes
	// finished: <nil>
}

// With manual demand nothing comes that was not asked for.
func ExampleReceiver_Request() {
	over := make(chan error)
	conn, stop := serve(func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			for n := int64(1); err == nil; n++ {
				err = out.Send(stream.Context(), &demopb.SubscribeResponse{Number: n})
			}
			over <- err
			return err
		}})
	})
	defer stop()

	ctx := context.Background()
	in, err := streamcredit.DialReceive(ctx, demopb.NewStreamServiceClient(conn).Subscribe, streamcredit.WithManualDemand())
	if err != nil {
		log.Fatal(err)
	}
	if err := in.Request(2); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		event, err := in.Recv(ctx)
		fmt.Println(event.GetNumber(), err)
	}
	in.Cancel("that will do")
	fmt.Println("Send:", <-over)
	_ = in.Close()
	// Output:
	// 1 <nil>
	// 2 <nil>
	// Send: streamcredit: the receiver has canceled: that will do
}

// A stage in the middle of a pipeline asks for what it is asked for.
func ExamplePipe() {
	conn, stop := serve(func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, handlers{convert: func(stream convertServer) error {
			both, _, err := streamcredit.Serve(stream, streamcredit.WithManualDemand())
			if err != nil {
				return err
			}
			return streamcredit.Pipe(stream.Context(), both.In, both.Out,
				func(_ context.Context, e *demopb.ConvertRequest) (*demopb.ConvertResponse, error) {
					return &demopb.ConvertResponse{Number: e.GetNumber() * e.GetNumber()}, nil
				})
		}})
	})
	defer stop()

	ctx := context.Background()
	both, err := streamcredit.Dial(ctx, demopb.NewStreamServiceClient(conn).Convert)
	if err != nil {
		log.Fatal(err)
	}
	defer both.Close()
	go func() {
		for n := range int64(3) {
			if err := both.Out.Send(ctx, &demopb.ConvertRequest{Number: n + 1}); err != nil {
				log.Print(err)
			}
		}
		_ = both.Out.Close() // Recv says what is wrong
	}()
	for e, err := range both.In.All(ctx) {
		fmt.Println(e.GetNumber(), err)
	}
	// Output:
	// 1 <nil>
	// 4 <nil>
	// 9 <nil>
}

// A topic serves subscribers of different speed: each has a policy for when it is too slow.
func ExampleTopic() {
	var prices streamcredit.Topic[*demopb.SubscribeResponse]
	conn, stop := serve(func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			return prices.Serve(stream.Context(), out, streamcredit.OutboxConfig{Policy: streamcredit.Latest})
		}})
	})
	defer stop()

	ctx := context.Background()
	in, err := streamcredit.DialReceive(ctx, demopb.NewStreamServiceClient(conn).Subscribe)
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	for prices.Stats().Subscribers == 0 { // until the subscription has arrived
		runtime.Gosched()
	}
	prices.Publish(&demopb.SubscribeResponse{Number: 42})
	prices.Close()
	for e, err := range in.All(ctx) {
		fmt.Println(e.GetNumber(), err)
	}
	// Output:
	// 42 <nil>
}

// Bytes need no message of their own; small elements share messages.
func ExampleServeFrames() {
	conn, stop := serve(func(r grpc.ServiceRegistrar) {
		creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, greeting, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
			if err != nil {
				return err
			}
			for _, word := range []string{string(greeting), "world"} {
				if err := both.Out.Send(stream.Context(), []byte(word)); err != nil {
					return err
				}
			}
			return both.Out.Finish(stream.Context())
		}})
	})
	defer stop()

	ctx := context.Background()
	both, err := streamcredit.DialFrames(ctx, creditpb.NewCreditStreamClient(conn).Channel,
		streamcredit.WithReceiveOnly(), streamcredit.WithSetup([]byte("hello")))
	if err != nil {
		log.Fatal(err)
	}
	defer both.Close()
	for {
		word, err := both.In.Recv(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		fmt.Printf("%s %v\n", word, err)
	}
	// Output:
	// hello <nil>
	// world <nil>
}
