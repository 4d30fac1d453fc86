package interceptors_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// shutdown calls Shutdown with some time, and checks that it returns after took, and what
// is said in the error: nothing for no error.
func shutdown(t *testing.T, r *rig, some, took time.Duration, texts []string, gates ...*admit.Gate) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), some, errors.New("out of patience"))
	defer cancel()
	began := time.Now()
	err := interceptors.Shutdown(ctx, r.Server, gates...)
	if got := time.Since(began); got != took {
		t.Errorf("Shutdown: returned after %v, want %v", got, took)
	}
	if texts == nil {
		if err != nil {
			t.Errorf("Shutdown: got %v, want nil", err)
		}
		return
	}
	for _, text := range append(texts, "interceptors: shutdown: out of patience: ended ") {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("Shutdown: got %v, want an error that says %q", err, text)
		}
	}
}

// Calls that run end well, and those that wait are told at once to go elsewhere.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(2)), admit.WithName("write"))
		r := start(t, works(time.Second), unaryServers(interceptors.UnaryServer(g)))
		var all sync.WaitGroup
		ended := make([]error, 5)
		for i := range ended {
			all.Go(func() { _, ended[i] = r.Work(t.Context(), &demopb.WorkRequest{}) })
			synctest.Wait()
		}
		began := time.Now()
		go func() {
			synctest.Wait()
			if s := g.Stats(); !s.Draining || s.InFlight != 2 || s.Queue != 0 || time.Since(began) > 0 {
				t.Errorf("at once: got draining %v, %d in flight and %d waiting, want true, 2 and 0", s.Draining, s.InFlight, s.Queue)
			}
		}()
		shutdown(t, r, time.Minute, time.Second, nil, g)
		all.Wait()
		for i, err := range ended {
			if i < 2 {
				wantCode(t, err, codes.OK)
			} else if is, ok := interceptors.RefusalFrom(err); !ok || is.Reason != "draining" || is.Gate != "write" {
				t.Errorf("call %d: got %v, want that it was refused: the gate drains", i, err)
			}
		}
		atRest(t, g, 0, 2, 0)
		shutdown(t, r, time.Minute, 0, nil, g) // again
	})
}

// A health watch never ends by itself. It must not hold up the end of a server for ever.
func TestShutdownWithAHealthWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		r := start(t, &service{}, unaryServers(interceptors.UnaryServer(g)))
		watch, err := healthpb.NewHealthClient(r.Conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		shutdown(t, r, 3*time.Second, 3*time.Second, []string{"calls that no gate guards"}, g)
		_, err = watch.Recv()
		wantCode(t, err, codes.Unavailable)
		shutdown(t, r, 3*time.Second, 0, nil, g)
	})
}

// What does not end in time is ended, and named. Its permit comes free with its handler.
func TestShutdownEndsWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		write, streams := newGate(t, admit.WithName("write")), newGate(t, admit.WithName("streams"))
		idle := newGate(t, admit.WithName("idle"))
		r := start(t, works(time.Hour), append(unaryServers(interceptors.UnaryServer(write)),
			grpc.StreamInterceptor(interceptors.StreamServer(streams))))
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				wantCode(t, err, codes.Unavailable)
			})
		}
		s, err := r.Exchange(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		shutdown(t, r, 10*time.Second, 10*time.Second,
			[]string{`3 in flight (gate "write"), 1 in flight (gate "streams")`}, nil, write, idle, streams, nil)
		all.Wait()
		_, err = s.Recv()
		wantCode(t, err, codes.Unavailable)
		synctest.Wait()
		atRest(t, write)
		atRest(t, streams)
	})
}

// A connection that sends nothing, not even the preface of HTTP/2, holds up gRPC's own Stop until
// it has timed out. Calls still end, after seconds and not minutes.
func TestShutdownWithASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		opts, err := interceptors.Server(interceptors.ServerConfig{Gate: g})
		if err != nil {
			t.Fatal(err)
		}
		p := grpctest.Start(t, works(time.Hour).Register, grpctest.ServerOptions(opts...))
		ended := make(chan error, 1)
		go func() {
			_, err := demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{})
			ended <- err
		}()
		time.Sleep(time.Minute)
		p.NetConn(t)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if err := interceptors.Shutdown(ctx, p.Server, g); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: got %v, want that it ended a call", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("Shutdown: returned after %v, want at most 10s", took)
		}
		wantCode(t, <-ended, codes.Unavailable)
		synctest.Wait()
		atRest(t, g)
	})
}

// A handler that goes on after its context ended does not hold up Shutdown.
func TestShutdownDoesNotWaitForADeafHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		r := start(t, does(func(context.Context) error { time.Sleep(time.Hour); return nil }),
			append(unaryServers(interceptors.UnaryServer(g)), grpc.WaitForHandlers(false)))
		go func() { _, _ = r.Work(t.Context(), &demopb.WorkRequest{}) }()
		synctest.Wait()
		shutdown(t, r, time.Second, time.Second, []string{`1 in flight (gate "default")`}, g)
		if got := g.Stats().InFlight; got != 1 {
			t.Errorf("permits of a handler that runs: got %d, want 1", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		atRest(t, g)
	})
}

// Several at once do no harm, and gates alone are drained.
func TestShutdownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		r := start(t, works(time.Second), unaryServers(interceptors.UnaryServer(g)))
		go func() { _, _ = r.Work(t.Context(), &demopb.WorkRequest{}) }()
		synctest.Wait()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { shutdown(t, r, time.Minute, time.Second, nil, g, g) })
		}
		all.Wait()

		alone := newGate(t)
		shutdown(t, &rig{}, time.Minute, 0, nil, nil, alone)
		shutdown(t, &rig{}, time.Minute, 0, nil)
		if !alone.Stats().Draining {
			t.Error("a gate without a server: got not draining, want draining")
		}
	})
}
