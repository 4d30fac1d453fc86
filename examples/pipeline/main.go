// Pipeline shows demand that travels: a source, a stage in the middle and a worker, each a gRPC
// service of its own, in full duplex: jobs go one way and results the other. The worker is
// fast, then slow, then fast again, and the source makes as many jobs as the worker can do,
// although it knows only the stage in the middle. It prints a table and ends by itself.
//
//	go run ./examples/pipeline
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
	window int           // of the worker
}

func main() {
	var s settings
	flag.DurationVar(&s.phase, "phase", 3*time.Second, "how long the worker is fast, then slow, then fast again")
	flag.IntVar(&s.window, "window", 8, "how many jobs the worker asks for ahead")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := show(ctx, os.Stdout, s)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

type (
	job          = demopb.ConvertRequest
	answer       = demopb.ConvertResponse
	serverStream = grpc.BidiStreamingServer[job, answer]
)

// A worker is the last service. It asks for a few jobs ahead, and does one after the other.
type worker struct {
	demopb.UnimplementedStreamServiceServer

	window int
	cost   atomic.Int64 // of a job, in nanoseconds
	done   atomic.Int64 // jobs
}

// Convert does jobs. One is consumed, and makes room, when the body of the loop has ended.
func (w *worker) Convert(stream serverStream) error {
	ctx := stream.Context()
	both, _, err := streamcredit.Serve(stream, streamcredit.WithWindow(w.window))
	if err != nil {
		return err
	}
	for j, err := range both.In.All(ctx) {
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(w.cost.Load())) // the work
		w.done.Add(1)
		if err := both.Out.Send(ctx, &answer{Number: j.GetNumber() * j.GetNumber()}); err != nil {
			return err
		}
	}
	return both.Out.Finish(ctx)
}

// A stage is the service in the middle: jobs go on to the worker, answers come back. Each of its
// pipes asks for as much as it is asked for, and so it holds next to nothing.
type stage struct {
	demopb.UnimplementedStreamServiceServer

	worker demopb.StreamServiceClient
}

// Convert connects the streams of one client, one pipe each way.
func (s *stage) Convert(stream serverStream) error {
	ctx := stream.Context()
	up, _, err := streamcredit.Serve(stream, streamcredit.WithManualDemand())
	if err != nil {
		return err
	}
	down, err := streamcredit.Dial(ctx, s.worker.Convert, streamcredit.WithManualDemand())
	if err != nil {
		return err
	}
	var pipes sync.WaitGroup
	var there, back error
	pipes.Go(func() { there = streamcredit.Pipe(ctx, up.In, down.Out, same[job]) })
	pipes.Go(func() { back = streamcredit.Pipe(ctx, down.In, up.Out, same[answer]) })
	pipes.Wait()
	return errors.Join(there, back, down.Close())
}

func same[T any](_ context.Context, e *T) (*T, error) { return e, nil }

const (
	fast = time.Millisecond
	slow = 20 * time.Millisecond
)

// show runs the three and prints what was seen.
func show(ctx context.Context, w io.Writer, s settings) error {
	last := &worker{window: s.window}
	toWorker, stopWorker, err := serve(last)
	if err != nil {
		return err
	}
	defer stopWorker()
	toStage, stopStage, err := serve(&stage{worker: toWorker})
	if err != nil {
		return err
	}
	defer stopStage()
	both, err := streamcredit.Dial(ctx, toStage.Convert)
	if err != nil {
		return err
	}
	defer both.Close()
	fmt.Fprintf(w, "source -> stage -> worker, which asks for %d jobs ahead; the stage asks for what it is asked for.\n\n", s.window)
	fmt.Fprintf(w, "%-8s %10s %12s %12s %16s\n", "worker", "jobs/s", "done/s", "answers/s", "most in flight")

	src := &source{over: make(chan struct{})}
	var working sync.WaitGroup
	var sending, receiving error
	working.Go(func() { sending = src.send(ctx, both.Out) })
	working.Go(func() { receiving = src.receive(ctx, both.In) })
	err = watch(ctx, w, s, last, src)
	close(src.over)
	working.Wait()
	fmt.Fprintf(w, "\n%d jobs made, %d done, %d answers. The source never was more than %d jobs ahead of the worker: it made\n"+
		"what the worker asked for, two services away, and nothing piled up in between.\n",
		src.made.Load(), last.done.Load(), src.answers.Load(), src.most)
	return errors.Join(err, sending, receiving)
}

// A source makes jobs and takes answers.
type source struct {
	over    chan struct{}
	made    atomic.Int64
	answers atomic.Int64
	most    int64 // jobs made and not done, at most; watch's
}

// send makes a job when there is demand for it, until the show is over.
func (s *source) send(ctx context.Context, out *streamcredit.Sender[*job]) error {
	err := out.SendSeq(ctx, func(yield func(*job) bool) {
		for {
			select {
			case <-s.over:
				return
			default:
			}
			if !yield(&job{Number: s.made.Add(1)}) {
				return
			}
		}
	})
	return errors.Join(err, out.Close())
}

func (s *source) receive(ctx context.Context, in *streamcredit.Receiver[*answer]) error {
	for _, err := range in.All(ctx) {
		if err != nil {
			return err
		}
		s.answers.Add(1)
	}
	return nil
}

// watch changes the worker and prints a row for each phase.
func watch(ctx context.Context, w io.Writer, s settings, last *worker, src *source) error {
	for _, phase := range []struct {
		name string
		cost time.Duration
	}{{"fast", fast}, {"slow", slow}, {"fast", fast}} {
		last.cost.Store(int64(phase.cost))
		made, done, answers := src.made.Load(), last.done.Load(), src.answers.Load()
		most := int64(0)
		for start := time.Now(); time.Since(start) < s.phase; {
			select {
			case <-time.After(s.phase / 100):
			case <-ctx.Done():
				return ctx.Err()
			}
			most = max(most, src.made.Load()-last.done.Load())
		}
		src.most = max(src.most, most)
		rate := func(n int64) float64 { return float64(n) / s.phase.Seconds() }
		fmt.Fprintf(w, "%-8s %10.0f %12.0f %12.0f %16d\n", phase.name,
			rate(src.made.Load()-made), rate(last.done.Load()-done), rate(src.answers.Load()-answers), most)
	}
	return nil
}

// serve runs a server on a socket of its own and returns a client of it.
func serve(service demopb.StreamServiceServer) (client demopb.StreamServiceClient, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, service)
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
