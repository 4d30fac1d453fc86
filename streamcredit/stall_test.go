package streamcredit_test

import (
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
