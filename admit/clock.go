package admit

import (
	"context"
	"time"
)

// A clock tells the time since its gate was created. It is monotonic, and cheaper than time.Now.
// It does not change, so it is safe for concurrent use.
type clock struct{ epoch time.Time }

func newClock() clock { return clock{epoch: time.Now()} }

func (c *clock) now() time.Duration { return time.Since(c.epoch) }

// date returns a time on the clock as a date.
func (c *clock) date(at time.Duration) time.Time { return c.epoch.Add(at) }

// deadlineOf returns the deadline of a context, or 0 if it has none.
func (c *clock) deadlineOf(ctx context.Context) time.Duration {
	if d, has := ctx.Deadline(); has {
		return max(1, d.Sub(c.epoch))
	}
	return 0
}
