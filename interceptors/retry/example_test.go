package retry_test

import (
	"context"
	"fmt"
	"log"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/retry"
)

// The policy is gRPC's own, as a service config; the guard finds retries above it, such as
// those of an interceptor that somebody had installed before.
func ExampleConfig() {
	policy, err := retry.DialOption(retry.Config{Services: []string{"weir.demo.v1.DemoService"}})
	if err != nil {
		log.Fatal(err)
	}
	guard := retry.UnaryGuard(func(_, method string) { fmt.Println("two layers retry", method) })
	attempts := 0
	flaky := grpc.NewServer(grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		attempts++
		return nil, status.Error(codes.Unavailable, "flaky")
	}))
	again := middleware.UnaryClientInterceptor(middleware.WithMax(3), middleware.WithCodes(codes.Unavailable))
	client, stop := serve(flaky, policy, grpc.WithChainUnaryInterceptor(guard, again, guard))
	defer stop()
	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(status.Code(err), "after", attempts, "attempts")
	// Output:
	// two layers retry /weir.demo.v1.DemoService/Work
	// Unavailable after 3 attempts
}
