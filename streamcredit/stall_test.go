package streamcredit_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/streamcredit"
)

// A consumer that has stopped is no error, and no sign that its peer has: with heartbeats,
// too, and where demand is unbounded and the buffer is full.
func TestAStoppedConsumerIsNoStalledPeer(t *testing.T) {
	for name, c := range map[string]struct {
		opt  streamcredit.ReceiveOption
		asks int64
	}{
		"window":    {streamcredit.WithWindow(16), 0},
		"automatic": {streamcredit.WithAutoWindow(streamcredit.AutoWindow{}), 0},
		"manual":    {streamcredit.WithManualDemand(), 16},
		"unbounded": {streamcredit.WithManualDemand(), math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				if k.duplex() {
					t.Skip("nothing is unbounded there, and the rest is the same")
				}
				opts := opened(c.opt, streamcredit.WithHeartbeat(time.Second))
				e := connect(t, k, opts, opts)
				out, in := e.down()
				if c.asks > 0 {
					if err := in.Request(c.asks); err != nil {
						t.Fatal(err)
					}
				}
				later(func() {
					for n := int64(1); n <= 2000; n++ {
						if out.send(t.Context(), n) != nil {
							return
						}
					}
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				take(t, in, 1, 16)
			})
		})
	}
}

// A sender tells how long each Send waited for demand, and nothing of one that did not wait.
func TestOnStarvedTellsTheWait(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		var waits []time.Duration // of the one sender
		told := streamcredit.WithOnStarved(func(_ context.Context, wait time.Duration) { waits = append(waits, wait) })
		in := opened(streamcredit.WithManualDemand())
		e := connect(t, k, append(in, told), append(in, told))
		out, back := e.down()
		if err := back.Request(1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := out.send(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if len(waits) != 0 {
			t.Errorf("waits of a Send with credit: got %v, want none", waits)
		}
		later(func() {
			time.Sleep(3 * time.Second)
			_ = back.Request(1)
		})
		if err := out.send(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := out.send(short, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send without demand: got %v, want %v", err, context.DeadlineExceeded)
		}
		if len(waits) != 2 || waits[0] < 3*time.Second || waits[0] > 4*time.Second || waits[1] != time.Second {
			t.Errorf("waits: got %v, want 3 s, and 1 s until the deadline", waits)
		}
	})
}
