package stall_test

import (
	"context"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/stall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A stream writes when it is told to, with a patience of 8 s and a look each second.
type stream struct {
	writing, done, looks atomic.Uint64
	patience             time.Duration
	idle                 bool
	began                time.Time
	stalled              atomic.Int64 // when, since began
	calls                atomic.Int32
	during               func() // Stalled
}

func newStream() *stream { return &stream{began: time.Now(), idle: true, patience: 8 * time.Second} }

func (s *stream) Look() stall.Sight {
	s.looks.Add(1)
	return stall.Sight{Writing: s.writing.Load() > 0, Done: s.done.Load(), Patience: s.patience, Again: s.patience / 8, Idle: s.idle}
}

func (s *stream) Stalled() {
	s.calls.Add(1)
	s.stalled.Store(int64(time.Since(s.began)))
	if s.during != nil {
		s.during()
	}
}

func (s *stream) begin(w *stall.Watch) { s.writing.Add(1); w.Start(s) }
func (s *stream) end()                 { s.done.Add(1); s.writing.Add(^uint64(0)) }

func (s *stream) want(t *testing.T, from, to time.Duration) {
	t.Helper()
	if at := time.Duration(s.stalled.Load()); s.calls.Load() != 1 || at < from || at > to {
		t.Errorf("Stalled: got %d calls, the last after %v; want one after %v to %v", s.calls.Load(), at, from, to)
	}
}

func (s *stream) wantNone(t *testing.T) {
	t.Helper()
	if n := s.calls.Load(); n != 0 {
		t.Errorf("Stalled: got %d calls, want none", n)
	}
}

func TestAWriteThatDoesNotEnd(t *testing.T) {
	for name, before := range map[string]time.Duration{"the first": 0, "one of many": 100 * time.Second, "after a rest": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w stall.Watch
				s := newStream()
				for time.Since(s.began) < min(before, 100*time.Second) {
					s.begin(&w)
					time.Sleep(300 * time.Millisecond)
					s.end()
				}
				time.Sleep(before - time.Since(s.began))
				stuck := time.Since(s.began)
				s.begin(&w)
				time.Sleep(time.Minute)
				s.want(t, stuck+8*time.Second, stuck+9*time.Second)
				w.Stop()
				s.begin(&w)
				time.Sleep(time.Hour)
				s.want(t, stuck+8*time.Second, stuck+9*time.Second)
			})
		})
	}
}

// Writes that end, each in less than the patience, are none of its business.
func TestWritesThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w stall.Watch
		s := newStream()
		for range 1000 {
			s.begin(&w)
			time.Sleep(7900 * time.Millisecond)
			s.end()
		}
		s.begin(&w)
		w.Stop()
		time.Sleep(time.Hour)
		s.wantNone(t)
	})
}

// Where nothing is written nobody looks, unless the stream wants it.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w stall.Watch
		s := newStream()
		s.begin(&w)
		s.end()
		time.Sleep(10 * time.Second)
		before := s.looks.Load()
		time.Sleep(time.Hour)
		if n := s.looks.Load() - before; n > 0 {
			t.Errorf("looks while nothing is written: got %d, want 0", n)
		}
		w.Stop()

		var eager stall.Watch
		s = newStream()
		s.idle = false
		eager.Start(s)
		time.Sleep(time.Hour + time.Millisecond)
		s.writing.Add(1) // without Start
		time.Sleep(time.Minute)
		s.want(t, time.Hour+8*time.Second, time.Hour+10*time.Second)
		eager.Stop()
	})
}

// A write that begins as the watch goes to rest is seen.
func TestAWriteAtTheMomentOfRest(t *testing.T) {
	for offset := -2; offset <= 2; offset++ {
		synctest.Test(t, func(t *testing.T) {
			var w stall.Watch
			s := newStream()
			s.begin(&w)
			s.end()
			time.Sleep(3*time.Second + time.Duration(offset)*time.Nanosecond)
			s.begin(&w)
			time.Sleep(time.Minute)
			s.want(t, 11*time.Second-2, 13*time.Second)
			w.Stop()
		})
	}
}

// Stop waits for Stalled, and nothing is called after it.
func TestStopWaits(t *testing.T) {
	var w stall.Watch
	s := newStream()
	s.patience = time.Millisecond
	in, out, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.during = func() { close(in); <-out; s.done.Add(100) }
	s.begin(&w)
	<-in
	go func() { defer close(stopped); w.Stop() }()
	for range 100 {
		runtime.Gosched()
	}
	select {
	case <-stopped:
		t.Error("Stop returned while Stalled ran, want after it")
	default:
	}
	close(out)
	if <-stopped; s.done.Load() != 100 {
		t.Error("Stop returned before Stalled had ended, want after it")
	}
	var unused stall.Watch
	unused.Stop()
}

func TestManyAtOnce(t *testing.T) {
	for range 50 {
		var w stall.Watch
		s := newStream()
		done := make(chan struct{})
		for range 4 {
			go func() {
				for range 200 {
					s.begin(&w)
					s.end()
				}
				done <- struct{}{}
			}()
		}
		for range 4 {
			<-done
		}
		w.Stop()
		s.wantNone(t)
	}
}

// A call is what gRPC keeps in the context of a call.
type call struct{ ended []codes.Code }

func (*call) Method() string               { return "/s/m" }
func (*call) SetHeader(metadata.MD) error  { return nil }
func (*call) SendHeader(metadata.MD) error { return nil }
func (*call) SetTrailer(metadata.MD) error { return nil }

type ending struct{ *call }

func (c *ending) WriteStatus(st *status.Status) error {
	c.ended = append(c.ended, st.Code())
	return nil
}

func TestEndOf(t *testing.T) {
	c := &call{}
	within := grpc.NewContextWithServerTransportStream(context.Background(), &ending{c})
	end := stall.EndOf(within)
	if end == nil {
		t.Fatal("a stream of gRPC's: got no way to end it, want one")
	}
	if err := end(status.New(codes.Aborted, "")); err != nil || len(c.ended) != 1 || c.ended[0] != codes.Aborted {
		t.Errorf("got %v and the ends %v, want Aborted", err, c.ended)
	}
	for name, ctx := range map[string]context.Context{
		"no call":        context.Background(),
		"another stream": grpc.NewContextWithServerTransportStream(context.Background(), c),
		"ServeHTTP":      context.WithValue(within, http.ServerContextKey, &http.Server{}),
	} {
		if stall.EndOf(ctx) != nil {
			t.Errorf("%s: got a way to end it, want none", name)
		}
	}
}
