// Command client sends ../server more calls at once than it takes, and prints their results.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
)

func main() {
	addr := flag.String("addr", "localhost:50051", "where the server is")
	calls, limit := flag.Int("calls", 300, "to send at once"), flag.Duration("deadline", 5*time.Second, "of each call")
	takes := flag.Duration("takes", 200*time.Millisecond, "how long the server works on a call")
	flag.Parse()

	// A refused call is sent again after the delay that the server asked for, within a budget.
	weir, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{MaxAttempts: 5}})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient(*addr, append(weir, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	stub := demopb.NewDemoServiceClient(conn)

	var burst sync.WaitGroup
	var mu sync.Mutex
	count, start := map[string]int{}, time.Now()
	for range *calls {
		burst.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), *limit)
			defer cancel()
			_, err := stub.Work(ctx, &demopb.WorkRequest{Name: "you", CostMicros: takes.Microseconds()})
			result := status.Code(err).String()
			if r, ok := interceptors.RefusalFrom(err); ok {
				result = fmt.Sprintf("refused by gate %s: %s", r.Gate, r.Reason)
			}
			mu.Lock()
			defer mu.Unlock()
			count[result]++
		})
	}
	burst.Wait()
	fmt.Printf("%d calls in %v\n", *calls, time.Since(start).Round(time.Millisecond))
	for result, n := range count {
		fmt.Printf("%6d %s\n", n, result)
	}
}
