package streamcredit_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/streamcredit"
)

// A receiver does not ask for more than the sender's Open says it takes, whatever its window.
func TestAReceiverKeepsToTheSendersBound(t *testing.T) {
	for name, c := range map[string]struct {
		opts   []streamcredit.DuplexOption
		demand int64
	}{
		"the default":                    {nil, 0},
		"a window of 256":                {opened(streamcredit.WithWindow(256)), 0},
		"a window of 256, low water 250": {opened(streamcredit.WithWindow(256), streamcredit.WithLowWater(250)), 0},
		"an automatic window of 1000":    {opened(streamcredit.WithAutoWindow(streamcredit.AutoWindow{Min: 1000})), 0},
		"a window of 7":                  {opened(streamcredit.WithWindow(7)), 0},
		"manual, 5000":                   {opened(streamcredit.WithManualDemand()), 5000},
		"manual, unbounded":              {opened(streamcredit.WithManualDemand()), math.MaxInt64},
	} {
		for _, most := range []int64{1, 100} {
			t.Run(name, func(t *testing.T) {
				eachKind(t, func(t *testing.T, k kind) {
					if c.demand == math.MaxInt64 && k.duplex() {
						t.Skip("nothing is unbounded there")
					}
					opts := append(opened(streamcredit.WithMaxPeerDemand(most)), c.opts...)
					e := connect(t, k, opts, opts)
					out, in := e.down()
					time.Sleep(time.Second) // both have the other's Open
					if c.demand > 0 {
						if err := in.Request(c.demand); err != nil {
							t.Fatal(err)
						}
					}
					later(func() {
						for n := int64(1); out.send(e.ctx, n) == nil; n++ {
							if got := out.Credit(); got > most {
								t.Errorf("credit: got %d, want at most %d", got, most)
							}
						}
					})
					take(t, in, 1, 500)
					synctest.Wait()
				})
			})
		}
	}
}
