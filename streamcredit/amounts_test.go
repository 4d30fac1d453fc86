package streamcredit_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// The largest byte window is as quiet as any that does not fill.
func TestAVastByteWindowIsQuiet(t *testing.T) {
	const elements = 5_000
	for _, window := range []int64{1 << 40, math.MaxInt64 - 1, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			m := &streamcredit.Meter{}
			e := connect(t, framesDown, opened(streamcredit.WithWindow(1_000), streamcredit.WithByteWindow(window), streamcredit.WithMeter(m)), nil)
			later(func() {
				for n, err := int64(1), error(nil); n <= elements && err == nil; n++ {
					err = e.server.out.send(t.Context(), n)
				}
			})
			take(t, e.client.in, 1, elements)
			if got := m.Stats().ControlSent; got > elements/100 {
				t.Errorf("byte window %d: got %d control messages for %d elements, want at most %d", window, got, elements, elements/100)
			}
		})
	}
}

// A budget of any size and of elements of any size has room for the elements that it is said to have.
func TestABudgetOfVastElements(t *testing.T) {
	for _, c := range []streamcredit.BudgetConfig{
		{Bytes: math.MaxInt64, ElementBytes: math.MaxInt64},
		{Bytes: math.MaxInt64, ElementBytes: 1 << 62},
		{Messages: math.MaxInt64, ElementBytes: math.MaxInt64},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b := newBudget(t, c)
			in := newLoose(ctx, &creditpb.Open{WillSend: true}).receives(t, streamcredit.WithBudget(b))
			if got := b.Stats(); got.Streams != 1 || got.Messages < 1 || got.Bytes < 1 {
				t.Errorf("%+v: got %+v, want a stream with a message", c, got)
			}
			in.Cancel("")
			if got := b.Stats(); got != (streamcredit.BudgetStats{}) {
				t.Errorf("%+v: got %+v at the end, want nothing", c, got)
			}
		})
	}
}
