package memory_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// smallCalls makes 100 calls a second that take 20 ms each, until the returned function
// reports how many have failed.
func smallCalls(t *testing.T, conn *grpc.ClientConn) (failed func() int64) {
	t.Helper()
	var n atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			go func() {
				if conn.Invoke(t.Context(), blobs, &blob{Value: []byte("small")}, new(blob)) != nil {
					n.Add(1)
				}
			}()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() int64 {
		stop()
		<-done
		time.Sleep(time.Second)
		return n.Load()
	}
}

// A call that is larger than the limit runs beside small ones, which go on. A second large one
// is refused until the first has ended.
func TestALargeCallRunsBesideSmallOnes(t *testing.T) {
	const limit = 1 << 20
	for _, size := range []int{limit, 2 * limit, 3 * limit} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBytes(t, limit)
				p := startBlobs(t, b, func(_ context.Context, req *blob) (*blob, error) {
					time.Sleep(20 * time.Millisecond)
					if len(req.GetValue()) >= limit {
						time.Sleep(time.Second)
					}
					return &blob{}, nil
				})
				failed := smallCalls(t, p.Conn)
				time.Sleep(time.Second)
				large := func() error {
					return p.Conn.Invoke(t.Context(), blobs, &blob{Value: make([]byte, size)}, new(blob))
				}
				first := make(chan error, 1)
				go func() { first <- large() }()
				time.Sleep(500 * time.Millisecond)
				wantCode(t, large(), codes.Unavailable)
				if s := b.Stats(); s.Used < int64(size) {
					t.Errorf("while it runs: got %d bytes held, want all of its %d", s.Used, size)
				}
				if err := <-first; err != nil {
					t.Errorf("a call of %d bytes: got %v, want it to run", size, err)
				}
				if err := large(); err != nil {
					t.Errorf("another one after it: got %v, want it to run", err)
				}
				if n := failed(); n != 0 {
					t.Errorf("got %d small calls refused, want none", n)
				}
				wantBytes(t, b, "at the end", 0, 0, 0)
			})
		})
	}
}

// One client that does not read a response larger than the limit does not shut out the others.
func TestALargeUnreadAnswerBesideSmallCalls(t *testing.T) {
	const limit = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		b := newBytes(t, limit)
		p := startBlobs(t, b, func(_ context.Context, req *blob) (*blob, error) {
			if len(req.GetValue()) == 0 {
				return &blob{Value: make([]byte, 3*limit)}, nil
			}
			return &blob{}, nil
		})
		conn := p.Dial(t, grpc.WithStaticStreamWindowSize(64<<10))
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		askAndNotRead(ctx, t, conn)
		time.Sleep(time.Second)
		failed := smallCalls(t, p.Conn)
		time.Sleep(time.Second)
		if n := failed(); n != 0 {
			t.Errorf("got %d small calls refused, want none", n)
		}
		wantBytes(t, b, "before the client has left", 1, 3*limit, 3*limit+100)
		leave()
		synctest.Wait()
		wantBytes(t, b, "at the end", 0, 0, 0)
	})
}

// Large messages count for half of the limit each, so four of them refuse every call.
func TestLargeMessagesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBytes(t, 1<<20)
		p := startBlobs(t, b, func(_ context.Context, req *blob) (*blob, error) {
			time.Sleep(time.Second)
			return &blob{}, nil
		})
		const vital = "/weirtest.Vital/Get"
		var served, refused atomic.Int64
		for range 10 {
			go func() {
				switch err := p.Conn.Invoke(t.Context(), vital, &blob{Value: make([]byte, 3<<20)}, new(blob)); status.Code(err) {
				case codes.OK:
					served.Add(1)
				case codes.Unavailable:
					refused.Add(1)
				default:
					t.Errorf("got %v, want an answer or a refusal", err)
				}
			}()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if served.Load() != 3 || refused.Load() != 7 {
			t.Errorf("got %d critical calls served and %d refused, want 3 and 7", served.Load(), refused.Load())
		}
		wantBytes(t, b, "at the end", 0, 0, 0)
	})
}
