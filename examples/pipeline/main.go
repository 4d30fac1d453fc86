// Pipeline shows how demand travels through three gRPC services, a source, a stage and a
// worker. Their streams are full duplex. Jobs go one way and results the other. The worker is
// fast, then slow, then fast again. The source makes as many jobs as the worker can do,
// although it talks only to the stage. The program prints a table and ends by itself.
//
//	go run ./examples/pipeline
package main

import (
	"cmp"
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
	window int           // of the worker
}

func main() {
	var s settings
	flag.DurationVar(&s.phase, "phase", 3*time.Second, "how long the worker is fast, then slow, then fast again")
	flag.IntVar(&s.window, "window", 8, "how many jobs the worker asks for ahead")
	flag.Parse()
	program.Main(func(ctx context.Context) error { return run(ctx, os.Stdout, s) })
}

// validate returns all errors at once.
func (s settings) validate() error {
	var errs []error
	check := func(ok bool, name string, got, want any) {
		if !ok {
			errs = append(errs, fmt.Errorf("pipeline: %s: got %v, want %v", name, got, want))
		}
	}
	check(s.phase >= shortest, "-phase", s.phase, fmt.Sprintf("at least %v", shortest))
	check(s.window >= 1 && s.window <= math.MaxInt32, "-window", s.window, "1 to 2147483647")
	return errors.Join(errs...)
}

type (
	job          = demopb.ConvertRequest
	answer       = demopb.ConvertResponse
	serverStream = grpc.BidiStreamingServer[job, answer]
)

// A worker is the last service. It asks for a few jobs ahead, and does them one by one.
type worker struct {
	demopb.UnimplementedStreamServiceServer

	window int
	cost   atomic.Int64 // of a job, in nanoseconds
	done   atomic.Int64 // jobs
}

func newWorker(s settings) *worker { return &worker{window: s.window} }

// Convert does jobs. A job is consumed at the end of the loop body, and makes room then.
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

// A stage is the service in the middle. It passes jobs on to the worker and answers back. Each
// of its pipes asks for no more than it is asked for, so the stage holds next to nothing.
type stage struct {
	demopb.UnimplementedStreamServiceServer

	worker demopb.StreamServiceClient
	passed atomic.Int64 // jobs
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
	defer down.Close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var pipes sync.WaitGroup
	pipe := func(connect func() error) {
		pipes.Go(func() {
			if err := connect(); err != nil {
				fail(err) // the other pipe ends too, and its error is ignored
			}
		})
	}
	pipe(func() error { return streamcredit.Pipe(ctx, up.In, down.Out, s.pass) })
	pipe(func() error { return streamcredit.Pipe(ctx, down.In, up.Out, same[answer]) })
	pipes.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return down.Close()
}

// pass counts a job on its way to the worker.
func (s *stage) pass(_ context.Context, j *job) (*job, error) {
	s.passed.Add(1)
	return j, nil
}

func same[T any](_ context.Context, e *T) (*T, error) { return e, nil }

const (
	fast = time.Millisecond
	slow = 20 * time.Millisecond
	// shortest is the shortest phase with a visible effect.
	shortest = 5 * slow
)

// A chain is the three services.
type chain struct {
	src    *source
	middle *stage
	last   *worker
}

// run runs the demonstration with each service on a socket of its own.
func run(ctx context.Context, w io.Writer, s settings) error {
	if err := s.validate(); err != nil {
		return err
	}
	last := newWorker(s)
	toWorker, stopWorker, err := serve(last)
	if err != nil {
		return err
	}
	defer stopWorker()
	middle := &stage{worker: toWorker}
	toStage, stopStage, err := serve(middle)
	if err != nil {
		return err
	}
	defer stopStage()
	return show(ctx, w, s, chain{newSource(), middle, last}, toStage)
}

// show runs the source while the worker changes speed, and prints a table.
func show(ctx context.Context, w io.Writer, s settings, c chain, toStage demopb.StreamServiceClient) error {
	fmt.Fprintf(w, "source -> stage -> worker, which asks for %d jobs ahead; the stage asks for what it is asked for.\n\n", s.window)
	fmt.Fprintf(w, "%-8s %27s     %s\n", "", "per second", "most in flight from")
	fmt.Fprintf(w, "%-8s %8s %8s %9s %16s %16s\n", "worker", "made", "done", "answers", "source to stage", "stage to worker")
	most := int64(0)
	if err := c.src.work(ctx, toStage, func(ended <-chan struct{}) (err error) {
		most, err = c.watch(ctx, w, s.phase, ended)
		return err
	}); err != nil {
		return err // without a conclusion
	}
	fmt.Fprintf(w, "\n%d jobs made, %d done, %d answers. The source was at most %d jobs ahead of the worker: it made\n"+
		"what the worker asked for, two services away, and nothing piled up in between.\n",
		c.src.made.Load(), c.last.done.Load(), c.src.answers.Load(), most)
	return nil
}

// A source makes jobs and takes answers.
type source struct {
	over    chan struct{}
	made    atomic.Int64
	answers atomic.Int64
}

func newSource() *source { return &source{over: make(chan struct{})} }

// work makes jobs and takes answers until watch returns. It tells watch when it cannot send any
// more. It returns the cause of a failure and not the errors that follow from it.
func (s *source) work(ctx context.Context, toStage demopb.StreamServiceClient, watch func(ended <-chan struct{}) error) error {
	both, err := streamcredit.Dial(ctx, toStage.Convert)
	if err != nil {
		return err
	}
	defer both.Close()
	var working sync.WaitGroup
	var sending, receiving error
	working.Go(func() { sending = s.send(ctx, both.Out) })
	working.Go(func() { receiving = s.receive(ctx, both.In) })
	watching := watch(both.Out.Done())
	close(s.over)
	working.Wait()
	// The answers end with the cause. An error of Send only follows from it.
	return cmp.Or(watching, receiving, sending)
}

// send makes a job whenever there is demand for one, until the run is over.
func (s *source) send(ctx context.Context, out *streamcredit.Sender[*job]) error {
	if err := out.SendSeq(ctx, func(yield func(*job) bool) {
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
	}); err != nil {
		return err
	}
	return out.Close()
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

// A count is the number of jobs at each point of the chain.
type count struct{ made, passed, done, answers int64 }

// count reads the source first, so that no job seems to be ahead of its place.
func (c chain) count() count {
	return count{c.src.made.Load(), c.middle.passed.Load(), c.last.done.Load(), c.src.answers.Load()}
}

// watch changes the speed of the worker, prints a row for each phase, and returns the largest
// number of jobs that the source was ahead. It returns early if nothing can be sent any more.
// The source has the cause.
func (c chain) watch(ctx context.Context, w io.Writer, phase time.Duration, ended <-chan struct{}) (ever int64, err error) {
	for _, p := range []struct {
		name string
		cost time.Duration
	}{{"fast", fast}, {"slow", slow}, {"fast", fast}} {
		c.last.cost.Store(int64(p.cost))
		before, start := c.count(), time.Now()
		var first, second int64 // the most in flight at each hop
		for time.Since(start) < phase {
			select {
			case <-time.After(phase / 100):
			case <-ctx.Done():
				return ever, ctx.Err()
			case <-ended:
				return ever, nil
			}
			now := c.count()
			first, second, ever = max(first, now.made-now.passed), max(second, now.passed-now.done), max(ever, now.made-now.done)
		}
		after, took := c.count(), time.Since(start).Seconds()
		rate := func(from, to int64) float64 { return float64(to-from) / took }
		fmt.Fprintf(w, "%-8s %8.0f %8.0f %9.0f %16d %16d\n", p.name, rate(before.made, after.made),
			rate(before.done, after.done), rate(before.answers, after.answers), first, second)
	}
	return ever, nil
}

// serve runs a server on a socket of its own and returns a client of it.
func serve(service demopb.StreamServiceServer) (client demopb.StreamServiceClient, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close())
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, service)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return demopb.NewStreamServiceClient(conn), func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	}, nil
}
