// Command client sends ../server more calls at once than it takes, and prints what came of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
)

// A refused call is sent again after the delay that the server asked for; the backoff is for other failures.
const retry = `{"methodConfig": [{"name": [{"service": "weir.demo.v1.DemoService"}], "retryPolicy": {
	"retryableStatusCodes": ["UNAVAILABLE"], "maxAttempts": 5,
	"initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2}}]}`

func main() {
	addr := flag.String("addr", "localhost:50051", "where the server is")
	calls := flag.Int("calls", 300, "how many calls to send at once")
	flag.Parse()

	conn, err := grpc.NewClient(*addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retry))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	stub := demopb.NewDemoServiceClient(conn)

	results := make(chan codes.Code, *calls)
	var burst sync.WaitGroup
	start := time.Now()
	for range *calls {
		burst.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := stub.Work(ctx, &demopb.WorkRequest{Name: "you", CostMicros: 20_000})
			results <- status.Code(err)
		})
	}
	burst.Wait()
	close(results)
	fmt.Printf("%d calls in %v\n", *calls, time.Since(start).Round(time.Millisecond))
	count := map[codes.Code]int{}
	for code := range results {
		count[code]++
	}
	for code, n := range count {
		fmt.Printf("%6d %v\n", n, code)
	}
}
