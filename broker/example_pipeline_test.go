package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// dialMemory serves streams in memory, and returns a client of them.
func dialMemory(s streams) (client demopb.StreamServiceClient, stop func()) {
	lis := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	demopb.RegisterStreamServiceServer(server, s)
	go func() { _ = server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	return demopb.NewStreamServiceClient(conn), func() { _ = conn.Close(); server.Stop() }
}

// A handler of Consume may put messages into an Outbox. With the policy Block, the demand
// of the stream reaches the broker. A message is acknowledged when it is queued.
func ExampleConsume_outbox() {
	handler := func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		if err != nil {
			return err
		}
		ctx := stream.Context()
		outbox, err := streamcredit.NewOutbox(ctx, out, streamcredit.OutboxConfig{Policy: streamcredit.Block})
		if err != nil {
			return err
		}
		source, err := broker.NewSource(newQueue(3), broker.SourceConfig{})
		if err != nil {
			return err
		}
		put := func(ctx context.Context, m *broker.Message) error {
			return outbox.Put(ctx, &demopb.SubscribeResponse{Payload: []byte(m.ID)})
		}
		one := broker.ConsumeConfig{Gate: must(admitOne())} // one after the other
		err = broker.Consume(ctx, source, put, one)
		return errors.Join(err, outbox.Close(ctx))
	}
	client, stop := dialMemory(streams{subscribe: handler})
	defer stop()
	in, err := streamcredit.DialReceive(context.Background(), client.Subscribe)
	if err != nil {
		panic(err)
	}
	for range 3 {
		event, err := in.Recv(context.Background())
		if err != nil {
			panic(err)
		}
		fmt.Println("message", string(event.GetPayload()))
	}
	in.Close()
	// Output:
	// message 1
	// message 2
	// message 3
}

// A Pipe behind Serve consumes a message when its result was sent on, so the message is
// acknowledged at the broker then. The demand of the last receiver reaches the broker.
func ExampleServe_pipe() {
	ctx := context.Background()
	queue := newQueue(5)
	first, stopFirst := dialMemory(streams{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		if err != nil {
			return err
		}
		source, err := broker.NewSource(queue, broker.SourceConfig{})
		if err != nil {
			return err
		}
		return broker.Serve(stream.Context(), out, source, encode, broker.ServeConfig{})
	}})
	defer stopFirst()
	second, stopSecond := dialMemory(streams{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		if err != nil {
			return err
		}
		in, err := streamcredit.DialReceive(stream.Context(), first.Subscribe, streamcredit.WithManualDemand())
		if err != nil {
			return err
		}
		defer in.Close()
		return streamcredit.Pipe(stream.Context(), in, out,
			func(_ context.Context, e *demopb.SubscribeResponse) (*demopb.SubscribeResponse, error) {
				return &demopb.SubscribeResponse{Payload: append(e.GetPayload(), '!')}, nil
			})
	}})
	defer stopSecond()
	in, err := streamcredit.DialReceive(ctx, second.Subscribe, streamcredit.WithManualDemand())
	if err != nil {
		panic(err)
	}
	if err := in.Request(2); err != nil {
		panic(err)
	}
	for range 2 {
		event, err := in.Recv(ctx)
		if err != nil {
			panic(err)
		}
		fmt.Println("message", string(event.GetPayload()))
	}
	ready, _ := queue.state()
	fmt.Println("left at the broker:", ready)
	in.Close()
	// Output:
	// message 1!
	// message 2!
	// left at the broker: 3
}
