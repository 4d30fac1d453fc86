package interceptors_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// A slow moment, such as the first call of a connection, does not make a client refuse calls
// that the server could serve since. Calls that are hopeless are still not sent, but for a few.
func TestASlowMomentIsNotTheShortestTime(t *testing.T) {
	for name, c := range map[string]struct {
		slow   time.Duration // how long the server is slow
		period time.Duration // of the callers with a deadline of a second
		lost   int           // at most
	}{
		"the first call, then 100 a second":  {time.Millisecond, 10 * time.Millisecond, 10},
		"the first call, then 1000 a second": {time.Millisecond, time.Millisecond, 110},
		"the first call, then one a second":  {time.Millisecond, time.Second, 1},
		"five seconds, then 100 a second":    {5 * time.Second, 10 * time.Millisecond, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r := start(t, does(func(context.Context) error {
					if time.Since(began) < c.slow {
						time.Sleep(2 * time.Second)
					}
					time.Sleep(5 * time.Millisecond)
					return nil
				}), nil,
					grpc.WithUnaryInterceptor(interceptors.UnaryPropagation(0)))
				for time.Since(began) < c.slow { // patient callers
					if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
						t.Fatal(err)
					}
				}
				var lost atomic.Int64
				const calls = 2000
				for range calls {
					go func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						if _, err := r.Work(ctx, &demopb.WorkRequest{}); err != nil {
							lost.Add(1)
						}
					}()
					time.Sleep(c.period)
				}
				synctest.Wait()
				time.Sleep(2 * time.Second)
				if got := int(lost.Load()); got > c.lost {
					t.Errorf("lost of %d calls to a healthy server: got %d, want at most %d", calls, got, c.lost)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		r := start(t, does(func(context.Context) error { sent.Add(1); time.Sleep(2 * time.Second); return nil }), nil,
			grpc.WithUnaryInterceptor(interceptors.UnaryPropagation(0)))
		if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
			t.Fatal(err)
		}
		for range 500 { // for 5 s
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _ = r.Work(ctx, &demopb.WorkRequest{})
			}()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		if got := sent.Load(); got > 52 {
			t.Errorf("hopeless calls that were sent in 5 s: got %d of 500, want about one each 100 ms", got)
		}
	})
}
