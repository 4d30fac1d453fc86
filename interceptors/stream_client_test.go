package interceptors_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// A client's stream holds its permit while it is open, and no longer, whichever
// way it ends: once, and with nothing to learn for the limit.
func TestStreamClientReleases(t *testing.T) {
	type stream = demopb.DemoService_ExchangeClient
	for _, c := range []struct {
		name string
		end  func(t *testing.T, r *rig, s stream, cancel func())
	}{
		{"end of the stream", func(t *testing.T, _ *rig, s stream, _ func()) {
			if err := s.CloseSend(); err != nil {
				t.Error(err)
			}
			for range 3 { // more than once
				if _, err := s.Recv(); !errors.Is(err, io.EOF) {
					t.Errorf("Recv: got %v, want EOF", err)
				}
			}
		}},
		{"error of the server", func(t *testing.T, _ *rig, s stream, _ func()) {
			if err := s.Send(&demopb.ExchangeRequest{Text: "fail"}); err != nil {
				t.Error(err)
			}
			_, err := s.Recv()
			wantCode(t, err, codes.DataLoss)
		}},
		{"cancel, then read", func(t *testing.T, _ *rig, s stream, cancel func()) {
			cancel()
			_, err := s.Recv()
			wantCode(t, err, codes.Canceled)
		}},
		{"cancel and forget", func(_ *testing.T, _ *rig, _ stream, cancel func()) { cancel(); synctest.Wait() }},
		{"deadline and forget", func(*testing.T, *rig, stream, func()) { time.Sleep(time.Hour); synctest.Wait() }},
		{"send fails", func(t *testing.T, _ *rig, s stream, _ func()) {
			err := s.Send(&demopb.ExchangeRequest{Text: strings.Repeat("x", 2000)})
			wantCode(t, err, codes.ResourceExhausted)
		}},
		{"connection closed and forget", func(_ *testing.T, r *rig, _ stream, _ func()) { _ = r.Conn.Close(); synctest.Wait() }},
		{"server stopped", func(t *testing.T, r *rig, s stream, _ func()) {
			r.Server.Stop()
			_, err := s.Recv()
			wantCode(t, err, codes.Unavailable)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := strict(t, 1)
				r := start(t, &service{OnExchange: echo}, nil, grpc.WithStreamInterceptor(interceptors.StreamClient(g)),
					grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1000)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				s, err := r.Exchange(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for range 5 {
					if err := s.Send(&demopb.ExchangeRequest{}); err != nil {
						t.Fatal(err)
					}
					if _, err := s.Recv(); err != nil {
						t.Fatal(err)
					}
				}
				_, err = r.Exchange(ctx)
				wantRefusal(t, err, admit.QueueFull, codes.ResourceExhausted)

				c.end(t, r, s, cancel)
				atRest(t, g, 1, 0, 0)
			})
		})
	}
}

// A stream with a single response is over when that is read; one with many is not.
func TestStreamClientSingleResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		r := start(t, &service{}, nil, grpc.WithStreamInterceptor(interceptors.StreamClient(g)))
		s, err := r.Conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, work)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SendMsg(&demopb.WorkRequest{}), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if got := g.Stats().InFlight; got != 1 {
			t.Errorf("before the response: got %d in flight, want 1", got)
		}
		if err := s.RecvMsg(new(demopb.WorkResponse)); err != nil {
			t.Fatal(err)
		}
		atRest(t, g, 1, 0, 0)
	})
}

// A late is a context that package context does not know.
type late struct {
	context.Context
	done chan struct{}
}

func (l late) Done() <-chan struct{} { return l.done }
func (l late) Err() error {
	select {
	case <-l.done:
		return context.Canceled
	default:
		return nil
	}
}

// Each way to see the end works by itself, for streamers that are not gRPC's.
func TestStreamClientOtherStreamers(t *testing.T) {
	for _, c := range []struct {
		name    string
		server  bool // it streams
		recv    error
		open    error
		end     func(s grpc.ClientStream, cancel func(), finish func(error))
		release bool
	}{
		{"nothing", true, nil, nil, func(grpc.ClientStream, func(), func(error)) {}, false},
		{"message", true, nil, nil, func(s grpc.ClientStream, _ func(), _ func(error)) { _ = s.RecvMsg(nil) }, false},
		{"only message", false, nil, nil, func(s grpc.ClientStream, _ func(), _ func(error)) { _ = s.RecvMsg(nil) }, true},
		{"EOF", true, io.EOF, nil, func(s grpc.ClientStream, _ func(), _ func(error)) { _ = s.RecvMsg(nil) }, true},
		{"error", true, io.ErrUnexpectedEOF, nil, func(s grpc.ClientStream, _ func(), _ func(error)) { _ = s.RecvMsg(nil) }, true},
		{"context", true, nil, nil, func(_ grpc.ClientStream, cancel func(), _ func(error)) { cancel() }, true},
		{"finish", true, nil, nil, func(_ grpc.ClientStream, _ func(), finish func(error)) { finish(nil) }, true},
		{"all", true, io.EOF, nil, func(s grpc.ClientStream, cancel func(), finish func(error)) {
			finish(nil)
			_ = s.RecvMsg(nil)
			cancel()
			finish(nil)
		}, true},
		{"not opened", true, nil, io.ErrClosedPipe, func(grpc.ClientStream, func(), func(error)) {}, true},
	} {
		for _, known := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					if !known {
						l := late{context.Background(), make(chan struct{})}
						ctx, cancel = l, func() { close(l.done) }
					}
					g := strict(t, 1)
					var finish func(error)
					s, err := interceptors.StreamClient(g)(ctx, &grpc.StreamDesc{ServerStreams: c.server}, nil, work,
						func(_ context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
							finish = opts[len(opts)-1].(grpc.OnFinishCallOption).OnFinish
							if c.open != nil {
								return nil, c.open
							}
							return &deaf{Err: c.recv}, nil
						}, grpc.WaitForReady(true))
					if !errors.Is(err, c.open) {
						t.Errorf("open: got %v, want %v", err, c.open)
					}
					ended := false
					c.end(s, func() { cancel(); ended = true }, finish)
					synctest.Wait()
					if c.release {
						atRest(t, g, 1, 0, 0) // and no goroutine, or the bubble complains
						return
					}
					if got := g.Stats().InFlight; got != 1 {
						t.Errorf("in flight: got %d, want 1", got)
					}
					if !ended {
						cancel()
					}
				})
			})
		}
	}
}

// The options of a call are its own: adding to them must not write into the
// caller's slice.
func TestStreamClientKeepsOptions(t *testing.T) {
	t.Parallel()
	opts := make([]grpc.CallOption, 1, 8)
	opts[0] = grpc.WaitForReady(true)
	_, _ = interceptors.StreamClient(newGate(t))(t.Context(), &grpc.StreamDesc{}, nil, work,
		func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
			return nil, io.EOF
		}, opts...)
	if got := opts[:2][1]; got != nil {
		t.Errorf("behind the caller's options: got %v, want nothing", got)
	}
}
