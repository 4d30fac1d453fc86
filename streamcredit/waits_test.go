package streamcredit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/streamcredit"
)

// A wait for more elements than were sent ends when the direction is closed, and not with the
// stream.
func TestWaitConsumedForElementsThatAreNotSent(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		e := connect(t, k, nil, nil)
		out, in := e.down()
		sendAll(t, out, 1, 2)
		var err error
		waiting := later(func() { err = out.WaitConsumed(within(t, time.Hour), 3) })
		if waiting.Load() {
			t.Errorf("WaitConsumed(3) before the end: got %v, want it to wait", err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !waiting.Load() || !errors.Is(err, streamcredit.ErrClosed) {
			t.Errorf("WaitConsumed(3) of 2 after Close: returned %t, %v; want %v", waiting.Load(), err, streamcredit.ErrClosed)
		}
		if err := out.WaitConsumed(within(t, time.Minute), 4); !errors.Is(err, streamcredit.ErrClosed) {
			t.Errorf("WaitConsumed(4) of 2: got %v, want %v", err, streamcredit.ErrClosed)
		}
		take(t, in, 1, 2)
		if err := out.WaitConsumed(within(t, time.Minute), 2); err != nil {
			t.Errorf("WaitConsumed(2) of 2: got %v, want no error", err)
		}
	})
}
