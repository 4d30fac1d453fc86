package interceptors_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// A call whose context ends in the queue leaves it at that moment, over a real
// client and server, and says so.
func TestContextEndsInQueue(t *testing.T) {
	for _, c := range []struct {
		name   string
		client bool // whose gate it is
		end    func(context.Context) (context.Context, context.CancelFunc)
		code   codes.Code
		cause  error
	}{
		{"deadline on the server", false, after(300 * time.Millisecond), codes.DeadlineExceeded, context.DeadlineExceeded},
		{"deadline on the client", true, after(300 * time.Millisecond), codes.DeadlineExceeded, context.DeadlineExceeded},
		{"cancel on the server", false, canceled(300 * time.Millisecond), codes.Canceled, context.Canceled},
		{"cancel on the client", true, canceled(300 * time.Millisecond), codes.Canceled, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
				release := hold(t, g)
				var seen error // next to the gate
				var dial []grpc.DialOption
				var server []grpc.ServerOption
				ctx := t.Context()
				if c.client {
					dial = append(dial, grpc.WithUnaryInterceptor(interceptors.UnaryClient(g)))
					var cancel func()
					ctx, cancel = c.end(ctx)
					defer cancel()
				} else {
					server = unaryServers(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
						ctx, cancel := c.end(ctx)
						defer cancel()
						resp, err := h(ctx, req)
						seen = err
						return resp, err
					}, interceptors.UnaryServer(g))
				}
				r := start(t, &service{}, server, dial...)
				began := time.Now()
				_, err := r.Work(ctx, &demopb.WorkRequest{})
				if got := time.Since(began); got != 300*time.Millisecond {
					t.Errorf("left the queue after %v, want 300ms", got)
				}
				wantCode(t, err, c.code)
				if c.client {
					seen = err
				}
				if !errors.Is(seen, c.cause) || errors.Is(seen, admit.ErrRefused) {
					t.Errorf("error: got %v, want one that is %v and no refusal", seen, c.cause)
				}
				release()
				atRest(t, g, 1, 0, 0) // the holder
				if got := g.Stats().Left; got != 1 {
					t.Errorf("left: got %d, want 1", got)
				}
			})
		})
	}
}

// The caller of a call that waits at a server leaves, by deadline or by cancel:
// the place in the queue is free in the same moment, unary or stream.
func TestCallerLeavesServersQueue(t *testing.T) {
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"deadline": after(300 * time.Millisecond), "cancel": canceled(300 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
				release := hold(t, g)
				r := start(t, &service{}, []grpc.ServerOption{
					grpc.UnaryInterceptor(interceptors.UnaryServer(g)), grpc.StreamInterceptor(interceptors.StreamServer(g)),
				})
				ctx, cancel := end(t.Context())
				defer cancel()
				for range 10 {
					go func() { _, _ = r.Work(ctx, &demopb.WorkRequest{}) }()
					go func() { _ = drainStream(ctx, r) }()
				}
				time.Sleep(300*time.Millisecond - 1)
				synctest.Wait()
				if got := g.Stats().Queue; got != 20 {
					t.Errorf("queue just before: got %d, want 20", got)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if s := g.Stats(); s.Queue != 0 || s.Left != 20 {
					t.Errorf("at the end: got %d queued and %d left, want 0 and 20", s.Queue, s.Left)
				}
				release()
				atRest(t, g, 1, 0, 0)
			})
		})
	}
}

func after(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

func canceled(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(d, cancel)
		return ctx, cancel
	}
}

// An ended is a context of somebody's own making.
type ended struct {
	context.Context
	err error
}

func (e ended) Err() error { return e.err }

// A call whose context has ended takes no permit, free as they are.
func TestContextEndedOnArrival(t *testing.T) {
	t.Parallel()
	strange := errors.New("strange")
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{strange, codes.Unknown},
	} {
		g := newGate(t)
		ctx := ended{t.Context(), c.err}
		_, unary := interceptors.UnaryServer(g)(ctx, nil, workInfo, nil)
		_, stream := interceptors.StreamClient(g)(ctx, &grpc.StreamDesc{}, nil, work, nil)
		for _, err := range []error{
			unary, stream,
			interceptors.StreamServer(g)(nil, &serverStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: work}, nil),
			interceptors.UnaryClient(g)(ctx, work, nil, nil, nil, nil),
		} {
			wantCode(t, err, c.want)
			if !errors.Is(err, c.err) {
				t.Errorf("error: got %v, want one that is %v", err, c.err)
			}
			if len(status.Convert(err).Details()) != 0 {
				t.Errorf("details: got %v, want none: nobody refused", status.Convert(err).Details())
			}
		}
		atRest(t, g, 0, 0, 0)
	}
}

// With Block, a client's gate slows its callers down to what it lets through.
func TestClientWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(2)), admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
		r := start(t, works(time.Second), nil, grpc.WithUnaryInterceptor(interceptors.UnaryClient(g)))
		began, done := time.Now(), make(chan error)
		for range 10 {
			go func() {
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				done <- err
			}()
		}
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got, want := time.Since(began), 5*time.Second; got != want {
			t.Errorf("ten calls of a second, two at a time: got %v, want %v", got, want)
		}
		atRest(t, g, 0, 10, 0)
	})
}
