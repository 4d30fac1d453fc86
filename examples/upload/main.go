// Upload shows a client that sends no more than its server asks for. The server's disk is fast,
// then slow, then fast again, and the client produces parts at the speed of the disk. It prints
// a table and ends by itself.
//
//	go run ./examples/upload
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
	phase  time.Duration // fast, slow, fast
	window int
	held   int64 // bytes that the server asks for, at most
	bytes  int   // of a part
}

func main() {
	var s settings
	flag.DurationVar(&s.phase, "phase", 3*time.Second, "how long the disk is fast, then slow, then fast again")
	flag.IntVar(&s.window, "window", 16, "how many parts the server asks for ahead")
	flag.Int64Var(&s.held, "held", 8<<20, "how many bytes the server lets the client be ahead; 0 for no bound")
	flag.IntVar(&s.bytes, "bytes", 32<<10, "the size of a part")
	flag.Parse()
	program.Main(func(ctx context.Context) error { return run(ctx, os.Stdout, s) })
}

// largest is the largest part that fits into a message of gRPC's default size.
const largest = 4<<20 - 1<<10

// validate returns all errors at once.
func (s settings) validate() error {
	var errs []error
	check := func(ok bool, name string, got, want any) {
		if !ok {
			errs = append(errs, fmt.Errorf("upload: %s: got %v, want %v", name, got, want))
		}
	}
	check(s.phase >= shortest, "-phase", s.phase, fmt.Sprintf("at least %v", shortest))
	check(s.window >= 1 && s.window <= math.MaxInt32, "-window", s.window, "1 to 2147483647")
	check(s.held >= 0, "-held", s.held, "0 or more")
	check(s.bytes >= 0 && s.bytes <= largest, "-bytes", s.bytes, fmt.Sprintf("0 to %d", largest))
	return errors.Join(errs...)
}

// run runs the demonstration with a server on a socket of its own.
func run(ctx context.Context, w io.Writer, s settings) error {
	if err := s.validate(); err != nil {
		return err
	}
	disk := newStore(s)
	client, stop, err := serve(disk)
	if err != nil {
		return err
	}
	defer stop()
	return show(ctx, w, s, disk, client)
}

// A store is the server. It writes each part to a slow disk.
type store struct {
	demopb.UnimplementedStreamServiceServer

	window int
	held   int64
	cost   atomic.Int64 // of a part, in nanoseconds
	stored atomic.Int64 // parts
}

func newStore(s settings) *store { return &store{window: s.window, held: s.held} }

// Upload stores parts. A part makes room for another one at the end of the loop body.
func (s *store) Upload(stream grpc.BidiStreamingServer[demopb.UploadRequest, demopb.UploadResponse]) error {
	in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(s.window), streamcredit.WithByteWindow(s.held))
	if err != nil {
		return err
	}
	for _, err := range in.All(stream.Context()) {
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(s.cost.Load())) // the disk
		s.stored.Add(1)
	}
	return nil
}

const (
	fast = time.Millisecond
	slow = 20 * time.Millisecond
	// shortest is the shortest phase with a visible effect.
	shortest = 5 * slow
)

// show uploads through the three phases and prints a table.
func show(ctx context.Context, w io.Writer, s settings, disk *store, client demopb.StreamServiceClient) error {
	out, err := streamcredit.DialSend(ctx, client.Upload)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "A client sends parts of %d bytes as fast as it may; the server asks for %d ahead.\n\n", s.bytes, s.window)
	fmt.Fprintf(w, "%-6s %14s %14s %12s %14s\n", "disk", "produced/s", "stored/s", "in flight", "client waited")

	produced, most, err := produce(ctx, out, s.bytes, func() (int64, error) { return watch(ctx, w, s, disk, out) })
	if err != nil {
		return err
	}
	if err := out.Finish(ctx); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nFinish returned when all was stored: %d parts produced, %d stored, %d confirmed to the client.\n"+
		"The client was at most %d parts ahead of the disk: what the disk could not take was not produced.\n",
		produced, disk.stored.Load(), out.Consumed(), most)
	return nil
}

// produce makes parts until watch returns. It returns their number and the results of watch.
func produce(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest], size int, watch func() (int64, error)) (
	produced, most int64, err error,
) {
	over := make(chan struct{})
	var failed error
	var producing sync.WaitGroup
	producing.Go(func() {
		// A part is made only when there is demand for it.
		failed = out.SendSeq(ctx, func(yield func(*demopb.UploadRequest) bool) {
			for {
				select {
				case <-over:
					return
				default:
				}
				produced++
				if !yield(&demopb.UploadRequest{Number: produced, Payload: make([]byte, size)}) {
					return
				}
			}
		})
	})
	most, err = watch()
	close(over)
	producing.Wait()
	if err == nil {
		err = failed
	}
	return produced, most, err
}

// watch changes the disk, prints a row for each phase, and returns the largest number of parts
// that the client was ahead.
func watch(ctx context.Context, w io.Writer, s settings, disk *store, out *streamcredit.Sender[*demopb.UploadRequest]) (int64, error) {
	ever := int64(0)
	for _, phase := range []struct {
		name string
		cost time.Duration
	}{{"fast", fast}, {"slow", slow}, {"fast", fast}} {
		disk.cost.Store(int64(phase.cost))
		before, stored := out.Stats(), disk.stored.Load()
		most, start := int64(0), time.Now()
		for time.Since(start) < s.phase {
			select {
			case <-time.After(s.phase / 50):
			case <-ctx.Done():
				return ever, ctx.Err()
			case <-out.Done():
				return ever, nil // the server has ended the stream, and Send returns the cause
			}
			most = max(most, int64(out.Stats().Sent)-disk.stored.Load())
		}
		ever = max(ever, most)
		after, took := out.Stats(), time.Since(start).Seconds()
		fmt.Fprintf(w, "%-6s %14.0f %14.0f %12d %13.0f%%\n", phase.name,
			float64(after.Sent-before.Sent)/took, float64(disk.stored.Load()-stored)/took,
			most, 100*(after.Starved-before.Starved).Seconds()/took)
	}
	return ever, nil
}

// serve runs the server on a socket of its own and returns a client of it.
func serve(disk *store) (client demopb.StreamServiceClient, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close())
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, disk)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return demopb.NewStreamServiceClient(conn), func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	}, nil
}
