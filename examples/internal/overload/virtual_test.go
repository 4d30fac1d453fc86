package overload_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/internal/overload"
)

// through calls a service through a gate, without a network, as an interceptor does.
func through(gate *admit.Gate, service *overload.Service, c admit.Class) func(context.Context) error {
	return func(ctx context.Context) error {
		if gate == nil {
			service.Serve(ctx)
			return status.FromContextError(ctx.Err()).Err()
		}
		permit, err := gate.Acquire(ctx, admit.Call{Class: c})
		if err != nil {
			if errors.Is(err, admit.ErrRefused) {
				return status.Error(codes.Unavailable, err.Error())
			}
			return status.FromContextError(err).Err()
		}
		outcome := admit.Overload
		defer func() { permit.Release(outcome) }()
		service.Serve(ctx)
		if ctx.Err() == nil {
			outcome = admit.Success
		}
		return status.FromContextError(ctx.Err()).Err()
	}
}

// The metastable failure of BenchmarkMetastable in virtual time. Without a gate the server
// still fails once all workers are back. With one it serves all calls within half a second.
func TestMetastable(t *testing.T) {
	for name, c := range map[string]struct {
		gated bool
		third time.Duration
	}{"weir": {true, 10 * time.Second}, "none": {false, 3 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var gate *admit.Gate
				if c.gated {
					gate = freshGate(t)
				}
				service := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Seed: 1})
				defer service.Close()
				attempt := through(gate, service, admit.Default)
				l := &overload.Load{Rate: 1300, Patience: 1600 * time.Millisecond, Seed: 1}
				l.Call = func(ctx context.Context) error { return insist(ctx, attempt) }
				third := c.third
				time.AfterFunc(third, func() { service.SetWorkers(3) })
				time.AfterFunc(2*third, func() { service.SetWorkers(8) })
				l.Run(t.Context(), 3*third)
				before := l.Between(0, third)
				lost := before.Offered - before.Good
				back := backAfter(l, 2*third, 3*third)
				t.Attr("lost-before-%", fmt.Sprint(100*float64(lost)/float64(before.Offered)))
				t.Attr("back-s", fmt.Sprint(back.Seconds()))
				if !c.gated {
					if back < third {
						t.Errorf("without a gate: got all served again after %v, want never: the failure is not metastable", back)
					}
					return
				}
				if lost > 0 || back > 500*time.Millisecond {
					t.Errorf("with a gate: got %d of %d calls lost before and all served again after %v, want 0 and at most 500ms", lost, before.Offered, back)
				}
			})
		})
	}
}

// The surge of BenchmarkSurge in virtual time, in front of a fresh gate.
func TestSurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := freshGate(t)
		service := overload.NewService(overload.Config{Workers: 8, Mean: 20 * time.Millisecond, Seed: 1})
		defer service.Close()
		const third = 10 * time.Second
		load := func(of float64, c admit.Class) *overload.Load {
			return &overload.Load{Rate: of * service.Capacity(), Patience: 500 * time.Millisecond, Call: through(gate, service, c), Seed: uint64(c)}
		}
		critical, surge := load(0.4, admit.Critical), load(12, admit.Sheddable)
		var all sync.WaitGroup
		all.Go(func() { critical.Run(t.Context(), 3*third) })
		time.Sleep(third)
		surge.Run(t.Context(), third)
		all.Wait()
		for i, name := range []string{"before", "during", "after"} {
			r := critical.Between(time.Duration(i)*third, time.Duration(i+1)*third)
			share := float64(r.Good) / float64(r.Offered)
			t.Attr("critical-"+name, fmt.Sprint(share))
			if share < 0.999 {
				t.Errorf("critical calls %s the surge: got %.4f of %d served, want at least 0.999", name, share, r.Offered)
			}
		}
		during := critical.Between(third, 2*third).Goodput() + surge.Between(0, third).Goodput()
		t.Attr("goodput/capacity", fmt.Sprint(during/service.Capacity()))
		if got := during / service.Capacity(); got < 0.93 {
			t.Errorf("during the surge: got %.3f of the capacity used, want at least 0.93", got)
		}
	})
}

func freshGate(t *testing.T) *admit.Gate {
	t.Helper()
	g, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	return g
}
