// Ticker shows how elements pile up between a fast server and slow clients. Many clients on
// one connection subscribe to a server that sends as fast as it can. One client keeps up, and
// the others read a few elements a second. It runs first with plain gRPC streams, then with
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
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/program"
	"github.com/weir-go/weir/streamcredit"
)

type settings struct {
	duration time.Duration // of each run
	slow     int           // clients that read slowly
	every    time.Duration // how often they read
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
	program.Main(func(ctx context.Context) error { return show(ctx, os.Stdout, s) })
}

const (
	// largest is the largest element that fits into a message of gRPC's default size.
	largest = 4<<20 - 1<<10
	// shortest is the shortest run with a visible effect.
	shortest = 100 * time.Millisecond
	// most is the number of slow clients for which most machines have memory.
	most = 4096
)

// validate returns all errors at once.
func (s settings) validate() error {
	var errs []error
	check := func(ok bool, name string, got, want any) {
		if !ok {
			errs = append(errs, fmt.Errorf("ticker: %s: got %v, want %v", name, got, want))
		}
	}
	check(s.duration >= shortest, "-duration", s.duration, fmt.Sprintf("at least %v", shortest))
	check(s.slow >= 1 && s.slow <= most, "-slow", s.slow, fmt.Sprintf("1 to %d", most))
	check(s.every >= time.Millisecond, "-every", s.every, "at least 1ms")
	check(s.window >= 1 && s.window <= math.MaxInt32, "-window", s.window, "1 to 2147483647")
	check(s.bytes >= 0 && s.bytes <= largest, "-bytes", s.bytes, fmt.Sprintf("0 to %d", largest))
	return errors.Join(errs...)
}

// show does both runs and prints a table.
func show(ctx context.Context, w io.Writer, s settings) error {
	if err := s.validate(); err != nil {
		return err
	}
	fmt.Fprintf(w, "A server sends elements of %d bytes as fast as it can to %d clients that read one every %v,\n"+
		"and to one that reads along.\n\n", s.bytes, s.slow, s.every)
	fmt.Fprintf(w, "%-8s %10s %10s %10s %10s %10s %10s\n", "", "sent", "consumed", "in flight", "age, p50", "age, last", "peak heap")
	var seen [2]result
	for i, credit := range []bool{false, true} {
		r, err := run(ctx, s, credit)
		if err != nil {
			return err
		}
		seen[i] = r
		name := map[bool]string{false: "bare", true: "weir"}[credit]
		fmt.Fprintf(w, "%-8s %10d %10d %10d %10v %10v %6d MiB\n",
			name, r.sent, r.consumed, r.inFlight, rough(r.median), rough(r.last), r.heap>>20)
	}
	bare, weir := seen[0], seen[1]
	fmt.Fprintf(w, "\nIn flight is what was sent to one slow client and that client has not consumed, at most: %d elements\n"+
		"without credit, %d with a window of %d. HTTP/2 slows the sender down as well, but late: its windows grow with\n"+
		"the bandwidth of the connection, for streams that nobody reads, too. Age is that of an element when a slow client\n"+
		"reads it: half are older than %v without credit, and than %v with it.\n",
		bare.inFlight, weir.inFlight, s.window, rough(bare.median), rough(weir.median))
	return nil
}

func rough(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// A result is the result of one run.
type result struct {
	sent, consumed int64
	inFlight       int64         // at one slow client, at most
	median, last   time.Duration // age of the elements that slow clients read
	heap           uint64        // at most
}

// A ticker is the server. It counts the elements that it has sent to each client.
type ticker struct {
	demopb.UnimplementedStreamServiceServer

	credit bool
	sent   []atomic.Int64 // by the number of the client
}

// Subscribe sends as fast as it can. The client's first message has its number.
func (t *ticker) Subscribe(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	if t.credit {
		return t.onDemand(stream)
	}
	query, err := stream.Recv()
	if err != nil {
		return err
	}
	sent := &t.sent[query.GetCount()]
	for {
		if err := stream.Send(element(sent.Load()+1, query)); err != nil {
			return err
		}
		sent.Add(1)
	}
}

// onDemand is the same with credit. It creates an element only when there is demand for one, so
// the element is new when it is sent.
func (t *ticker) onDemand(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	ctx := stream.Context()
	out, query, err := streamcredit.ServeSend(stream)
	if err != nil {
		return err
	}
	sent := &t.sent[query.GetCount()]
	for {
		if err := out.WaitCredit(ctx); err != nil {
			return err
		}
		if err := out.Send(ctx, element(sent.Load()+1, query)); err != nil {
			return err
		}
		sent.Add(1)
	}
}

// ages collects the ages of elements when slow clients read them.
type ages struct {
	mu  sync.Mutex // guards all
	all []time.Duration
}

func (a *ages) add(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, d)
}

// summary returns the median and the last age.
func (a *ages) summary() (median, last time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) == 0 {
		return 0, 0
	}
	last = a.all[len(a.all)-1]
	sorted := slices.Sorted(slices.Values(a.all))
	return sorted[len(sorted)/2], last
}

func element(number int64, query *demopb.SubscribeRequest) *demopb.SubscribeResponse {
	return &demopb.SubscribeResponse{
		Number:        number,
		Payload:       make([]byte, query.GetPayloadBytes()),
		MadeUnixNanos: time.Now().UnixNano(),
	}
}

// subscribe returns a function that returns the next element.
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

// errOver ends a run.
var errOver = errors.New("ticker: the run is over")

// run does one of the two runs.
func run(ctx context.Context, s settings, credit bool) (r result, err error) {
	for range 3 { // the second one frees the pools of the run before
		runtime.GC()
	}
	t := &ticker{credit: credit, sent: make([]atomic.Int64, s.slow+1)}
	client, stop, err := serve(t, s.slow+1)
	if err != nil {
		return r, err
	}
	defer stop()
	ctx, end := context.WithCancelCause(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer end(nil)
	consumed := make([]atomic.Int64, s.slow+1)
	var seen ages
	for i := range s.slow + 1 {
		next, err := subscribe(ctx, client, s, credit, i)
		if err != nil {
			end(err)
			return r, context.Cause(ctx) // perhaps an interrupt
		}
		reading.Go(func() {
			for {
				e, err := next()
				if err != nil {
					end(err) // ignored once the run is over
					return
				}
				consumed[i].Add(1)
				if i < s.slow {
					seen.add(time.Duration(time.Now().UnixNano() - e.GetMadeUnixNanos()))
					pause(ctx, s.every)
				}
			}
		})
	}
	r.watch(ctx, s, t, consumed)
	r.median, r.last = seen.summary() // before the end, when gRPC delivers everything that it holds
	end(errOver)
	if err := context.Cause(ctx); !errors.Is(err, errOver) {
		return r, err // an interrupt, or a stream that broke
	}
	return r, nil
}

// watch samples the run until it is over or ctx ends.
func (r *result) watch(ctx context.Context, s settings, t *ticker, consumed []atomic.Int64) {
	for start := time.Now(); time.Since(start) < s.duration && ctx.Err() == nil; {
		pause(ctx, s.duration/20)
		runtime.GC() // the rest of the heap is reachable
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		r.heap = max(r.heap, m.HeapAlloc)
		for i := range s.slow {
			r.inFlight = max(r.inFlight, t.sent[i].Load()-consumed[i].Load())
		}
	}
	for i := range consumed {
		r.consumed += consumed[i].Load() // read before the sent ones, which are more
		r.sent += t.sent[i].Load()
	}
}

// serve runs the server on a socket of its own and returns a client of it.
func serve(t *ticker, streams int) (client demopb.StreamServiceClient, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close())
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(uint32(streams)), grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, t)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
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
