package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/breaker"
)

// A breaker tells when a circuit changes, and its refusals say when to come back.
func ExampleUnary() {
	b, err := breaker.New(
		breaker.Config{MinCalls: 5},
		breaker.WithHooks(breaker.Hooks{
			StateChanged: func(_, method string, from, to breaker.State) {
				fmt.Println(method, "was", from, "and is", to)
			},
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	sick := grpc.NewServer(grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		return nil, status.Error(codes.Unavailable, "no database")
	}))
	client, stop := serve(sick, grpc.WithUnaryInterceptor(breaker.Unary(b)))
	defer stop()
	for range 6 {
		_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	}
	fmt.Println(errors.Is(err, breaker.ErrOpen), status.Code(err))
	// Output:
	// /weir.demo.v1.DemoService/Work was closed and is open
	// true Unavailable
}
