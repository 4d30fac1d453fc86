// Ticker shows what piles up between a fast server and slow clients. Many clients of one
// connection subscribe to a server that sends as fast as it can; one reads along, the others
// read a few elements a second. First it is a plain gRPC stream, then the same with
// request(n). It prints a table and ends by itself.
//
//	go run ./examples/ticker
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

type settings struct {
	duration time.Duration // of each of the two
	slow     int           // clients that read slowly
	every    time.Duration // how often they do
	window   int
	bytes    int
}

func main() {
	var s settings
	flag.DurationVar(&s.duration, "duration", 4*time.Second, "how long each of the two runs takes")
	flag.IntVar(&s.slow, "slow", 32, "how many slow clients there are")
	flag.DurationVar(&s.every, "every", 20*time.Millisecond, "how often a slow client reads an element")
	flag.IntVar(&s.window, "window", 16, "how many elements a client asks for ahead")
	flag.IntVar(&s.bytes, "bytes", 1024, "the payload of an element")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := show(ctx, os.Stdout, s)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// show runs both and prints what was seen.
func show(ctx context.Context, w io.Writer, s settings) error {
	fmt.Fprintf(w, "A server sends elements of %d bytes as fast as it can to %d clients that read one every %v,\n"+
		"and to one that reads along.\n\n", s.bytes, s.slow, s.every)
	fmt.Fprintf(w, "%-8s %12s %12s %22s %16s %10s\n", "", "sent", "consumed", "in flight, slow client", "age of element", "peak heap")
	var seen [2]result
	for i, credit := range []bool{false, true} {
		r, err := run(ctx, s, credit)
		if err != nil {
			return err
		}
		seen[i] = r
		name := map[bool]string{false: "bare", true: "weir"}[credit]
		fmt.Fprintf(w, "%-8s %12d %12d %22d %16v %6d MiB\n",
			name, r.sent, r.consumed, r.inFlight, r.age.Round(10*time.Millisecond), r.heap>>20)
	}
	bare, weir := seen[0], seen[1]
	fmt.Fprintf(w, "\nIn flight is what the server has sent to one slow client that the client has not consumed, at most:\n"+
		"%d elements without credit, %d with a window of %d. HTTP/2 slows the sender down as well, but late: its windows\n"+
		"grow with the bandwidth of the connection, for streams that nobody reads, too. So a slow client reads elements\n"+
		"that are %v old; with credit %v, which is the time it takes to read a window.\n",
		bare.inFlight, weir.inFlight, s.window, bare.age.Round(10*time.Millisecond), weir.age.Round(10*time.Millisecond))
	return nil
}

// A result is what was seen in one run.
type result struct {
	sent, consumed int64
	inFlight       int64         // at one slow client, at most
	age            time.Duration // of the last element that a slow client has read
	heap           uint64        // at most
}

// A ticker is the server. It counts what it has sent to each client.
type ticker struct {
	demopb.UnimplementedStreamServiceServer

	credit bool
	sent   [1 << 12]atomic.Int64 // by the number of the client
}

// Subscribe sends as fast as it can. The client's first message has its number.
func (t *ticker) Subscribe(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	if t.credit {
		out, query, err := streamcredit.ServeSend(stream)
		for err == nil {
			if err = out.Send(stream.Context(), element(query)); err == nil {
				t.sent[query.GetCount()].Add(1)
			}
		}
		return err
	}
	query, err := stream.Recv()
	for err == nil {
		if err = stream.Send(element(query)); err == nil {
			t.sent[query.GetCount()].Add(1)
		}
	}
	return err
}

func element(query *demopb.SubscribeRequest) *demopb.SubscribeResponse {
	return &demopb.SubscribeResponse{Payload: make([]byte, query.GetPayloadBytes()), MadeUnixNanos: time.Now().UnixNano()}
}

// subscribe returns how to get the next element.
func subscribe(ctx context.Context, client demopb.StreamServiceClient, s settings, credit bool, number int) (
	func() (*demopb.SubscribeResponse, error), error,
) {
	query := &demopb.SubscribeRequest{Count: int64(number), PayloadBytes: int32(s.bytes)}
	if credit {
		in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithWindow(s.window), streamcredit.WithSetup(query))
		if err != nil {
			return nil, err
		}
		return func() (*demopb.SubscribeResponse, error) { return in.Recv(ctx) }, nil
	}
	stream, err := client.Subscribe(ctx)
	if err != nil {
		return nil, err
	}
	return stream.Recv, stream.Send(query)
}

// run is one of the two runs.
func run(ctx context.Context, s settings, credit bool) (r result, err error) {
	for range 3 { // what the run before has left in pools goes at the second
		runtime.GC()
	}
	t := &ticker{credit: credit}
	client, stop, err := serve(t, s.slow+1)
	if err != nil {
		return r, err
	}
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	var reading sync.WaitGroup
	defer reading.Wait()
	consumed := make([]atomic.Int64, s.slow+1)
	var age atomic.Int64
	for i := range s.slow + 1 {
		next, err := subscribe(ctx, client, s, credit, i)
		if err != nil {
			return r, err
		}
		reading.Go(func() {
			for e, err := next(); err == nil; e, err = next() { // until the end of the run
				consumed[i].Add(1)
				if i < s.slow {
					age.Store(time.Now().UnixNano() - e.GetMadeUnixNanos())
					pause(ctx, s.every)
				}
			}
		})
	}
	r.watch(ctx, s, t, consumed)
	r.age = time.Duration(age.Load())
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return r, err // interrupted
	}
	return r, nil
}

// watch looks at the run until ctx ends.
func (r *result) watch(ctx context.Context, s settings, t *ticker, consumed []atomic.Int64) {
	for ctx.Err() == nil {
		pause(ctx, s.duration/20)
		runtime.GC() // what is left is held by somebody
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		r.heap = max(r.heap, m.HeapAlloc)
		for i := range s.slow {
			r.inFlight = max(r.inFlight, t.sent[i].Load()-consumed[i].Load())
		}
	}
	for i := range consumed {
		r.sent += t.sent[i].Load()
		r.consumed += consumed[i].Load()
	}
}

// serve runs the server on a socket of its own and returns a client of it.
func serve(t *ticker, streams int) (client demopb.StreamServiceClient, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(uint32(streams)), grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, t)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return demopb.NewStreamServiceClient(conn), func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	}, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
