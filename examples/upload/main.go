// Upload shows a client that sends and a server that says how much: the server's disk is fast,
// then slow, then fast again, and the client produces as much as it can take, no more. It prints
// a table and ends by itself.
//
//	go run ./examples/upload
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
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
	phase  time.Duration // fast, slow, fast
	window int
	bytes  int
}

func main() {
	var s settings
	flag.DurationVar(&s.phase, "phase", 3*time.Second, "how long the disk is fast, then slow, then fast again")
	flag.IntVar(&s.window, "window", 16, "how many parts the server asks for ahead")
	flag.IntVar(&s.bytes, "bytes", 32<<10, "the size of a part")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := show(ctx, os.Stdout, s)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// A store is the server: it writes each part to a disk that takes its time.
type store struct {
	demopb.UnimplementedStreamServiceServer

	window int
	cost   atomic.Int64 // of a part, in nanoseconds
	stored atomic.Int64 // parts
}

// Upload stores what comes. A part makes room for another one when the loop's body has ended.
func (s *store) Upload(stream grpc.BidiStreamingServer[demopb.UploadRequest, demopb.UploadResponse]) error {
	in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(s.window), streamcredit.WithByteWindow(8<<20))
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
)

// show uploads through the three phases and prints what was seen.
func show(ctx context.Context, w io.Writer, s settings) error {
	disk := &store{window: s.window}
	client, stop, err := serve(disk)
	if err != nil {
		return err
	}
	defer stop()
	out, err := streamcredit.DialSend(ctx, client.Upload)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "A client sends parts of %d bytes as fast as it may; the server asks for %d ahead.\n\n", s.bytes, s.window)
	fmt.Fprintf(w, "%-6s %14s %14s %12s %14s\n", "disk", "produced/s", "stored/s", "in flight", "client waited")

	produced, err := produce(ctx, out, s.bytes, func() error { return watch(ctx, w, s, disk, out) })
	if err != nil {
		return err
	}
	err = out.Finish(ctx)
	fmt.Fprintf(w, "\nFinish: %v, with %d parts produced, %d stored and %d confirmed to the client.\n",
		err, produced, disk.stored.Load(), out.Consumed())
	fmt.Fprintf(w, "The client never ran more than %d parts ahead: what the disk cannot take was not produced.\n", s.window)
	return err
}

// produce makes parts until watch returns, and returns how many.
func produce(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest], size int, watch func() error) (int64, error) {
	over := make(chan struct{})
	var produced int64
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
	err := watch()
	close(over)
	producing.Wait()
	if err == nil {
		err = failed
	}
	return produced, err
}

// watch changes the disk and prints a row for each phase.
func watch(ctx context.Context, w io.Writer, s settings, disk *store, out *streamcredit.Sender[*demopb.UploadRequest]) error {
	for _, phase := range []struct {
		name string
		cost time.Duration
	}{{"fast", fast}, {"slow", slow}, {"fast", fast}} {
		disk.cost.Store(int64(phase.cost))
		before, stored := out.Stats(), disk.stored.Load()
		most := int64(0)
		for start := time.Now(); time.Since(start) < s.phase; {
			select {
			case <-time.After(s.phase / 50):
			case <-ctx.Done():
				return ctx.Err()
			}
			most = max(most, int64(out.Stats().Sent)-disk.stored.Load())
		}
		after := out.Stats()
		fmt.Fprintf(w, "%-6s %14.0f %14.0f %12d %13.0f%%\n", phase.name,
			float64(after.Sent-before.Sent)/s.phase.Seconds(), float64(disk.stored.Load()-stored)/s.phase.Seconds(),
			most, 100*(after.Starved-before.Starved).Seconds()/s.phase.Seconds())
	}
	return nil
}

// serve runs the server on a socket of its own and returns a client of it.
func serve(disk *store) (client demopb.StreamServiceClient, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, disk)
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
