package throttle_test

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/throttle"
)

// A throttle sends a server that refuses about twice what it accepts, and refuses the
// rest here.
func ExampleUnary() {
	t, err := throttle.New(throttle.Config{K: 2})
	if err != nil {
		log.Fatal(err)
	}
	arrived := 0
	full := grpc.NewServer(grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		arrived++
		return nil, status.Error(codes.Unavailable, "full")
	}))
	client, stop := serve(full, grpc.WithUnaryInterceptor(throttle.Unary(t)))
	defer stop()
	for range 1000 {
		_, _ = client.Work(context.Background(), &demopb.WorkRequest{})
	}
	fmt.Println("fewer than 100 of 1000 arrived:", arrived < 100)
	// Output: fewer than 100 of 1000 arrived: true
}
