package interceptors_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// One watch begins at a time, and two may be open.
func ExampleStreamReady() {
	gate, err := admit.New(admit.WithName("feed"), admit.WithFixedLimit(1), admit.WithoutQueue(), admit.WithMaxOpen(2))
	if err != nil {
		log.Fatal(err)
	}
	watch := &service{OnExchange: func(stream demopb.DemoService_ExchangeServer) error {
		news := "first" // expensive to find, so the stream holds a permit until here
		interceptors.StreamReady(stream.Context())
		if err := stream.Send(&demopb.ExchangeResponse{Text: news}); err != nil {
			return err
		}
		<-stream.Context().Done() // cheap
		return nil
	}}
	client, stop := serveWith(watch, grpc.NewServer(grpc.StreamInterceptor(interceptors.StreamServer(gate))))
	defer stop()

	for range 3 {
		stream, err := client.Exchange(context.Background())
		if err != nil {
			fmt.Println(err)
			return
		}
		event, err := stream.Recv()
		fmt.Printf("%q %v\n", event.GetText(), status.Code(err))
	}
	// Output:
	// "first" OK
	// "first" OK
	// "" ResourceExhausted
}

// A client that does not read loses its stream.
func ExampleWithStreams() {
	gate, err := admit.New(admit.WithName("feed"), admit.WithFixedLimit(100))
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	feed := &service{OnExchange: func(stream demopb.DemoService_ExchangeServer) error {
		for {
			if err := stream.Send(&demopb.ExchangeResponse{Text: "news"}); err != nil {
				ended <- err // it matches ErrSendStalled
				return err
			}
		}
	}}
	client, stop := serveWith(feed, grpc.NewServer(grpc.StreamInterceptor(interceptors.StreamServer(gate,
		interceptors.WithStreams(interceptors.StreamRule{SendStall: 20 * time.Millisecond}, nil), // far too short for a real server
	))))
	defer stop()

	if _, err := client.Exchange(context.Background()); err != nil { // and no Recv
		fmt.Println(err)
		return
	}
	fmt.Println(status.Convert(<-ended).Message())
	fmt.Println("streams ended:", gate.Stats().SendStalls)
	// Output:
	// weir: the client does not take what is sent to it: no message for 20ms (gate "feed")
	// streams ended: 1
}
