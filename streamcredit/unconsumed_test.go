package streamcredit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/streamcredit"
)

// uploadTo sends count elements to a handler that runs take and returns nil, and returns what
// Finish did. pause is between the last element and Finish.
func uploadTo(t *testing.T, k kind, count int64, pause time.Duration, opts []streamcredit.DuplexOption, take func(in inlet)) (consumed uint64, err error) {
	t.Helper()
	e := connect(t, k, opened(), opts)
	go func() {
		take(e.server.in)
		e.leave <- nil
	}()
	for n := int64(1); n <= count; n++ {
		if err = e.client.out.send(e.ctx, n); err != nil {
			break
		}
	}
	time.Sleep(pause)
	err = e.client.out.Finish(within(t, time.Hour))
	return e.client.out.Consumed(), err
}

// Finish says what a handler that returned nil has not consumed, and nothing if it has
// consumed everything, however little time there was to say so.
func TestFinishReportsWhatIsNotConsumed(t *testing.T) {
	for _, c := range []struct {
		sent, taken int64
		window      int
	}{
		{10, 0, 64},
		{10, 3, 64},
		{10, 9, 64},
		{10, 10, 64},
		{1, 1, 64},
		{1, 0, 64},
		{50, 20, 64},
		{50, 50, 64},
		{300, 300, 64},
		{2_000, 2_000, 100},
		{5_000, 5_000, 1_000},
	} {
		for _, pause := range []time.Duration{0, time.Second} {
			eachKind(t, func(t *testing.T, k kind) {
				if k == subscribes || k == framesDown {
					t.Skip("the server does not receive there")
				}
				ready := make(chan struct{})
				consumed, err := uploadTo(t, k, c.sent, pause, opened(streamcredit.WithWindow(c.window)), func(in inlet) {
					if c.taken <= int64(c.window) && c.sent <= int64(c.window) {
						time.Sleep(time.Millisecond) // so that all has arrived
					}
					take(t, in, 1, c.taken)
					close(ready)
				})
				<-ready
				left, ok := errors.AsType[*streamcredit.UnconsumedError](err)
				switch {
				case c.taken == c.sent && err != nil:
					t.Errorf("Finish after %d of %d: got %v, want no error", c.taken, c.sent, err)
				case c.taken < c.sent && (!ok || left.Sent != uint64(c.sent) || left.Consumed > uint64(c.taken) || !errors.Is(err, streamcredit.ErrCanceled)):
					t.Errorf("Finish after %d of %d: got %v, want an UnconsumedError of these", c.taken, c.sent, err)
				case c.taken <= 16 && consumed != uint64(c.taken):
					t.Errorf("Consumed after %d of %d: got %d", c.taken, c.sent, consumed)
				}
			})
		}
	}
}

// What a handler has received and is not done with is not consumed.
func TestFinishReportsWhatIsNotDone(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k == subscribes || k == framesDown {
			t.Skip("the server does not receive there")
		}
		_, err := uploadTo(t, k, 10, 0, opened(streamcredit.WithExplicitConsume()), func(in inlet) {
			take(t, in, 1, 10)
			if err := in.Consume(4); err != nil {
				t.Error(err)
			}
		})
		if left, ok := errors.AsType[*streamcredit.UnconsumedError](err); !ok || left.Sent != 10 || left.Consumed != 4 {
			t.Errorf("Finish with 4 of 10 done: got %v, want an UnconsumedError of these", err)
		}
	})
}

// Where there were too many elements to report each, the end of the sender makes sure again.
func TestFinishOfManyElements(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k == subscribes || k == framesDown {
			t.Skip("the server does not receive there")
		}
		const count, taken = 3_000, 2_990
		_, err := uploadTo(t, k, count, 0, opened(streamcredit.WithWindow(64)), func(in inlet) {
			take(t, in, 1, taken)
			time.Sleep(time.Second)
			synctest.Wait()
		})
		if _, ok := errors.AsType[*streamcredit.UnconsumedError](err); !ok {
			t.Errorf("Finish after %d of %d: got %v, want an UnconsumedError", taken, count, err)
		}
	})
}

// A stream that is slow is reported for as long as it lasts.
func TestFinishOfASlowStream(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k == subscribes || k == framesDown {
			t.Skip("the server does not receive there")
		}
		const slow, more = 480, 20 // the handler takes half of more
		e := connect(t, k, opened(), opened(streamcredit.WithWindow(64)))
		go func() {
			take(t, e.server.in, 1, slow)
			time.Sleep(time.Second)
			take(t, e.server.in, slow+1, slow+more/2)
			e.leave <- nil
		}()
		for n := int64(1); n <= slow; n++ {
			time.Sleep(200 * time.Millisecond)
			sendAll(t, e.client.out, n, n)
		}
		sendAll(t, e.client.out, slow+1, slow+more)
		<-e.left
		err := e.client.out.Finish(within(t, time.Hour))
		if left, ok := errors.AsType[*streamcredit.UnconsumedError](err); !ok || left.Sent != slow+more || left.Consumed < slow {
			t.Errorf("Finish: got %v, want an UnconsumedError of %d elements and at least %d", err, slow+more, slow)
		}
	})
}
