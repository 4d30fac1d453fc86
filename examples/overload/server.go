package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/interceptors"
)

const (
	workers  = 8 // of the handler that waits
	waits    = 40 * time.Millisecond
	burns    = 3 * time.Millisecond // of the handler that computes
	sampling = 100 * time.Millisecond
)

// A config configures a server, which is a process of its own.
type config struct {
	Weir   bool
	Rounds int // of hashing in each call; with 0 the handler waits
	Seed   uint64
}

// A report is the state of a server at one moment.
type report struct {
	// Done counts the finished calls, whether or not the caller was still there.
	Done int64 `json:"done"`
	// CPU is the processor time of the process, or 0 if it is not known.
	CPU time.Duration `json:"cpu"`
	// Heap is in MiB.
	Heap float64 `json:"heap"`
	// Held is the number of goroutines, less the number in an idle server. There is about
	// one for each call.
	Held int `json:"held"`

	Limit    int `json:"limit"`
	InFlight int `json:"inFlight"`
	Queue    int `json:"queue"`
}

// A node is a server that reports its state.
type node struct {
	grpc    *grpc.Server
	gate    *admit.Gate       // nil without weir
	service *overload.Service // nil where the handler computes
	tell    func(report)

	began time.Time
	idle  int          // goroutines before the first call
	due   atomic.Int64 // when the next report is, in nanoseconds since began
	done  atomic.Int64
	mu    sync.Mutex // serialises reports
	over  chan struct{}
	clock sync.WaitGroup // the goroutine that reports by the clock
}

// newNode returns a server. It reports until it is closed.
func newNode(c config, tell func(report)) (*node, error) {
	n := &node{tell: tell, began: time.Now(), over: make(chan struct{})}
	work := func(context.Context) { overload.Burn(c.Rounds) }
	if c.Rounds == 0 {
		n.service = overload.NewService(overload.Config{Workers: workers, Mean: waits, Seed: c.Seed})
		work = n.service.Serve
	}
	opts := []grpc.ServerOption{grpc.WaitForHandlers(true)}
	if c.Weir {
		var err error
		if n.gate, err = admit.New(); err != nil { // with its defaults
			return nil, err
		}
		opts = append(opts, grpc.ChainUnaryInterceptor(interceptors.UnaryServer(n.gate)))
	}
	n.grpc = grpc.NewServer(opts...)
	overload.Register(n.grpc, func(ctx context.Context) {
		work(ctx)
		n.done.Add(1)
		n.report()
	})
	return n, nil
}

// serve serves until the node is closed.
func (n *node) serve(lis net.Listener) error {
	n.idle = runtime.NumGoroutine()
	n.clock.Go(func() {
		tick := time.NewTicker(sampling)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n.report()
			case <-n.over:
				return
			}
		}
	})
	return n.grpc.Serve(lis)
}

// close ends the waiting calls and waits for the running ones.
func (n *node) close() {
	close(n.over)
	n.clock.Wait()
	if n.service != nil {
		n.service.Close()
	}
	n.grpc.Stop()
}

// report sends a report if one is due. Handlers call it too. Where they compute, a goroutine
// that only reports would wait behind all of them.
func (n *node) report() {
	now, due := int64(time.Since(n.began)), n.due.Load()
	if now < due || !n.due.CompareAndSwap(due, now+int64(sampling)) {
		return
	}
	r := report{Done: n.done.Load(), CPU: cpuTime(), Heap: heap(), Held: max(0, runtime.NumGoroutine()-n.idle)}
	if n.gate != nil {
		s := n.gate.Stats()
		r.Limit, r.InFlight, r.Queue = s.Limit, s.InFlight, s.Queue
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tell(r)
}

func heap() float64 {
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m)
	return float64(m[0].Value.Uint64()) / (1 << 20)
}

// serveChild is the main function of a server process. It prints its address, and then its
// reports.
func serveChild(c config, out io.Writer) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	reports := json.NewEncoder(out)
	n, err := newNode(c, func(r report) { _ = reports.Encode(r) }) // an error means that the parent is gone
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, lis.Addr()); err != nil {
		return err
	}
	go func() { _ = n.serve(lis) }() // until the process is killed
	return nil
}
