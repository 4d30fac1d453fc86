package calltest

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-go/weir/examples/demopb"
)

// A Caller gives its calls some time, and ends them with a deadline or by canceling.
type Caller struct {
	Period  time.Duration // between its calls
	Gives   func(r *rand.Rand) time.Duration
	Cancels bool
	Patient bool // all of its calls should be served
}

// Always is a Caller.Gives that is always d.
func Always(d time.Duration) func(*rand.Rand) time.Duration {
	return func(*rand.Rand) time.Duration { return d }
}

// context ends a call's context as the caller does.
func (c *Caller) context(t *testing.T, r *rand.Rand) (context.Context, context.CancelFunc) {
	if !c.Cancels {
		return context.WithTimeout(t.Context(), c.Gives(r))
	}
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(c.Gives(r), cancel)
	return ctx, func() { timer.Stop(); cancel() }
}

// Callers makes the calls of all callers for d, and returns how many calls of the patient
// callers were made and served.
func Callers(t *testing.T, to demopb.DemoServiceClient, d time.Duration, cs ...Caller) (made, served int) {
	t.Helper()
	var good atomic.Int64
	var calls sync.WaitGroup
	for i, c := range cs {
		if c.Patient {
			made += int(d / c.Period)
		}
		calls.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range int(d / c.Period) {
				ctx, end := c.context(t, r)
				calls.Go(func() {
					defer end()
					if _, err := to.Work(ctx, &demopb.WorkRequest{}); err == nil && c.Patient {
						good.Add(1)
					}
				})
				time.Sleep(c.Period)
			}
		})
	}
	calls.Wait()
	return made, int(good.Load())
}
