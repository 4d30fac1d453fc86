package streamcredit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weir-go/weir/streamcredit"
)

// An application that takes more than its window before it is done with any waits, and the
// receiver's state says why. Consume goes on with it.
func TestAFullWindowOfElementsThatAreNotDone(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		const window, batch = 64, 100
		explicit := opened(streamcredit.WithExplicitConsume())
		e := connect(t, k, explicit, explicit)
		out, in := e.down()
		later(func() {
			n := int64(1)
			for out.send(e.ctx, n) == nil {
				n++
			}
		})
		take(t, in, 1, window)
		stuck := later(func() {
			if _, err := in.recv(within(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Recv of element %d: got %v, want it to wait", window+1, err)
			}
		})
		if s := in.Stats(); s.Held != window || s.Window != window || s.Waiting != 1 || stuck.Load() {
			t.Errorf("with %d elements that are not done: got %+v, want Held equal to Window and one that waits", window, s)
		}
		time.Sleep(2 * time.Second)
		if err := in.Consume(window); err != nil {
			t.Fatal(err)
		}
		take(t, in, window+1, batch)
		if s := in.Stats(); s.Held != batch-window {
			t.Errorf("after Consume: got %d held, want %d", s.Held, batch-window)
		}
	})
}
