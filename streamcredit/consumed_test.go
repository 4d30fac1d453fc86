package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// opened are options as connect takes them.
func opened(opts ...streamcredit.DuplexOption) []streamcredit.DuplexOption { return opts }

// eachKind runs a test of the direction down for every kind of stream, in a bubble each.
func eachKind(t *testing.T, test func(t *testing.T, k kind)) {
	t.Helper()
	for k, name := range []string{"subscribe", "upload", "convert", "frames both ways", "frames down", "frames up"} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, kind(k)) }) })
	}
}

// later returns whether f, which was called now, has returned.
func later(f func()) *atomic.Bool {
	var over atomic.Bool
	go func() { f(); over.Store(true) }()
	synctest.Wait()
	return &over
}

func sendAll(t *testing.T, out outlet, from, to int64) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := out.send(within(t, time.Minute), n); err != nil {
			t.Fatalf("Send %d: got %v, want no error", n, err)
		}
	}
}

func take(t *testing.T, in inlet, from, to int64) {
	t.Helper()
	for want := from; want <= to; want++ {
		if n, err := in.recv(within(t, time.Minute)); err != nil || n != want {
			t.Fatalf("Recv: got %d, %v; want %d", n, err, want)
		}
	}
}

// The body of a loop that runs has not consumed its element: Finish waits for it, although
// everything, the end included, has been received and seen.
func TestFinishWaitsForTheBodyOfTheLoop(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k == uploads || k == framesUp {
			t.Skip("there Finish waits for the handler") // see TestFinishReturnsTheStatus
		}
		e := connect(t, k, nil, nil)
		out, in := e.down()
		sendAll(t, out, 1, 3)
		body := make(chan struct{})
		consumer := later(func() {
			in.all(within(t, time.Minute), func(n int64, _ error) bool {
				if n == 3 {
					<-body
				}
				return true
			})
		})
		var err error
		finish := later(func() { err = out.Finish(within(t, time.Hour)) })
		time.Sleep(time.Minute / 2)
		if finish.Load() {
			t.Errorf("Finish while the last element is worked on: got %v, want it to wait", err)
		}
		close(body)
		synctest.Wait()
		if !finish.Load() || err != nil || out.Consumed() != 3 || !consumer.Load() {
			t.Errorf("Finish after it: returned %t, %v, with %d consumed; want nil with 3", finish.Load(), err, out.Consumed())
		}
	})
}

// The same where consumption is explicit.
func TestFinishWaitsForConsume(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k == uploads || k == framesUp {
			t.Skip("there Finish waits for the handler") // see TestFinishReturnsTheStatus
		}
		explicit := opened(streamcredit.WithExplicitConsume())
		e := connect(t, k, explicit, explicit)
		out, in := e.down()
		sendAll(t, out, 1, 3)
		take(t, in, 1, 3)
		var err error
		finish := later(func() { err = out.Finish(within(t, time.Hour)) })
		if _, err := in.recv(within(t, time.Minute)); !errors.Is(err, io.EOF) {
			t.Fatalf("Recv: got %v, want EOF", err)
		}
		for done := range uint64(3) {
			time.Sleep(time.Second)
			if finish.Load() {
				t.Fatalf("Finish with %d of 3 done: got %v, want it to wait", done, err)
			}
			if err := in.Consume(1); err != nil {
				t.Fatalf("Consume: got %v, want no error", err)
			}
		}
		synctest.Wait()
		if !finish.Load() || err != nil || out.Consumed() != 3 {
			t.Errorf("Finish with all done: returned %t, %v, with %d consumed; want nil with 3", finish.Load(), err, out.Consumed())
		}
	})
}

// A receiver that leaves after it has received everything, and before it is done with it,
// is one that has left.
func TestFinishEndsWhenTheReceiverLeaves(t *testing.T) {
	for name, leave := range map[string]func(in inlet) error{
		"Cancel": func(in inlet) error { in.Cancel("enough"); return nil },
		"Close":  inlet.Close,
		"leave the loop": func(in inlet) error {
			in.all(context.Background(), func(int64, error) bool { return false })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				if k == uploads || k == framesUp {
					t.Skip("there Finish waits for the handler") // see TestFinishReturnsTheStatus
				}
				e := connect(t, k, nil, nil)
				out, in := e.down()
				sendAll(t, out, 1, 3)
				var err error
				finish := later(func() { err = out.Finish(within(t, time.Hour)) })
				if finish.Load() {
					t.Fatalf("Finish with nothing consumed: got %v, want it to wait", err)
				}
				if err := leave(in); err != nil {
					t.Errorf("leaving: got %v, want no error", err)
				}
				time.Sleep(time.Second)
				if !finish.Load() {
					t.Error("Finish after the receiver has left: it waits, want it to return")
				}
			})
		})
	}
}

// A client that only sends learns the handler's status from Finish.
func TestFinishReturnsTheStatus(t *testing.T) {
	for _, k := range []kind{uploads, framesUp} {
		for name, c := range map[string]struct {
			leave error
			want  codes.Code
		}{
			"nil":      {nil, codes.OK},
			"an error": {errScript, codes.Aborted},
		} {
			t.Run(fmt.Sprint(k, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := connect(t, k, nil, nil)
					out, in := e.down()
					sendAll(t, out, 1, 3)
					var err error
					finish := later(func() { err = out.Finish(within(t, time.Hour)) })
					take(t, in, 1, 3)
					time.Sleep(time.Second)
					if finish.Load() {
						t.Fatalf("Finish before the handler has returned: got %v, want it to wait", err)
					}
					e.leave <- c.leave
					synctest.Wait()
					if !finish.Load() || status.Code(err) != c.want {
						t.Errorf("Finish: returned %t, %v; want %v", finish.Load(), err, c.want)
					}
				})
			})
		}
	}
}

func TestFinishEndsWithItsContext(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		e := connect(t, k, nil, nil)
		out, in := e.down()
		sendAll(t, out, 1, 1)
		if err := out.Finish(within(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Finish: got %v, want the context's error", err)
		}
		take(t, in, 1, 1)
		if _, err := in.recv(within(t, time.Second)); !errors.Is(err, io.EOF) {
			t.Errorf("Recv after Finish has given up: got %v, want EOF: it was closed", err)
		}
		if err := out.send(within(t, time.Second), 2); !errors.Is(err, streamcredit.ErrClosed) {
			t.Errorf("Send after Finish: got %v, want ErrClosed", err)
		}
	})
}

// Consumption is reported within 100 ms of there being nothing more to do, however the
// application works: one that waits for the report before it sends more would wait for ever.
func TestConsumptionIsReportedSoon(t *testing.T) {
	for name, c := range map[string]struct {
		opts    []streamcredit.DuplexOption
		consume func(ctx context.Context, in inlet) // what comes, until ctx ends
	}{
		"Recv": {nil, func(ctx context.Context, in inlet) {
			for ctx.Err() == nil {
				_, _ = in.recv(ctx)
			}
		}},
		"All": {nil, func(ctx context.Context, in inlet) { in.all(ctx, func(int64, error) bool { return true }) }},
		"two that wait, and one leaves": {nil, func(ctx context.Context, in inlet) {
			go func() { _, _ = in.recv(ctx) }() // the bubble waits for it
			time.Sleep(time.Millisecond)
			for ctx.Err() == nil {
				_, _ = in.recv(ctx)
			}
		}},
		"Consume by another goroutine": {opened(streamcredit.WithExplicitConsume()), func(ctx context.Context, in inlet) {
			work := make(chan int64, 3)
			workers := sync.WaitGroup{}
			workers.Go(func() {
				for range work {
					time.Sleep(time.Second)
					_ = in.Consume(1) // that it has effect is what the test looks for
				}
			})
			in.all(ctx, func(n int64, err error) bool {
				if err == nil {
					work <- n
				}
				return true
			})
			close(work)
			workers.Wait()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				e := connect(t, k, c.opts, c.opts)
				out, in := e.down()
				ctx, cancel := context.WithCancel(t.Context())
				consumer := later(func() { c.consume(ctx, in) })
				time.Sleep(time.Second) // so that all who wait do
				for n := range int64(3) {
					sendAll(t, out, n+1, n+1)
					if err := out.WaitConsumed(within(t, 2*time.Second), uint64(n)+1); err != nil {
						t.Errorf("WaitConsumed(%d): got %v with %d of %d consumed, want no error", n+1, err, out.Consumed(), in.Stats().Consumed)
					}
				}
				cancel()
				synctest.Wait()
				if !consumer.Load() {
					t.Error("the consumer waits, want it to end with its context")
				}
			})
		})
	}
}

// Explicit consumption is reported soon even if the application leaves elements unread.
func TestExplicitConsumptionBesideUnreadElements(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		opts := opened(streamcredit.WithExplicitConsume(), streamcredit.WithWindow(40))
		e := connect(t, k, opts, opts)
		out, in := e.down()
		sendAll(t, out, 1, 10)
		for range 2 {
			if _, err := in.recv(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Consume(2); err != nil {
			t.Fatal(err)
		}
		if err := out.WaitConsumed(within(t, time.Second), 2); err != nil {
			t.Errorf("WaitConsumed(2): got %v with %d of %d consumed, want no error", err, out.Consumed(), in.Stats().Consumed)
		}
	})
}

func TestWaitConsumed(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(e *ends, out outlet, in inlet)
		want      error
	}{
		"the context ends":     {func(*ends, outlet, inlet) {}, context.DeadlineExceeded},
		"the receiver cancels": {func(_ *ends, _ outlet, in inlet) { in.Cancel("enough") }, streamcredit.ErrCanceled},
		"consumed": {func(_ *ends, _ outlet, in inlet) {
			_, _ = in.recv(context.Background())
			_, _ = in.recv(context.Background())
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = in.recv(ctx) // reports what is consumed, for want of more
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				e := connect(t, k, nil, nil)
				out, in := e.down()
				sendAll(t, out, 1, 2)
				c.meanwhile(e, out, in)
				if err := out.WaitConsumed(within(t, time.Minute), 2); !errors.Is(err, c.want) {
					t.Errorf("WaitConsumed: got %v, want %v", err, c.want)
				}
				if err := out.WaitConsumed(within(t, time.Second), 0); err != nil {
					t.Errorf("WaitConsumed for nothing: got %v, want no error", err)
				}
			})
		})
	}
}

// A hook is called by one goroutine at a time, with numbers that grow, up to the last.
func TestOnConsumed(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		const count = 500
		var calls []uint64
		var inside atomic.Int32
		hook := opened(streamcredit.WithOnConsumed(func(n uint64) {
			if inside.Add(1) > 1 {
				t.Error("the hook was called while it ran, want one call at a time")
			}
			calls = append(calls, n)
			time.Sleep(30 * time.Millisecond) // it may block
			inside.Add(-1)
		}), streamcredit.WithWindow(16))
		e := connect(t, k, hook, hook)
		out, in := e.down()
		consumer := later(func() {
			in.all(within(t, time.Hour), func(int64, error) bool { time.Sleep(time.Millisecond); return true })
		})
		sendAll(t, out, 1, count)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(calls) < 10 || calls[len(calls)-1] != count || !slices.IsSorted(calls) || len(slices.Compact(slices.Clone(calls))) != len(calls) {
			t.Errorf("the hook was told %v, want numbers that grow up to %d", calls, count)
		}
		if err := out.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
		synctest.Wait()
		if !consumer.Load() {
			t.Error("the loop goes on, want it to end")
		}
	})
}

func TestOnConsumedPanics(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		hook := opened(streamcredit.WithOnConsumed(func(uint64) { panic("the hook's") }), streamcredit.WithWindow(1))
		e := connect(t, k, hook, hook)
		out, in := e.down()
		sendAll(t, out, 1, 1)
		take(t, in, 1, 1)
		synctest.Wait()
		err := out.send(within(t, time.Minute), 2)
		if status.Code(err) != codes.Internal {
			t.Errorf("Send after the hook has panicked: got %v, want %v", err, codes.Internal)
		}
		e.leave <- err
		_, err = in.recv(within(t, time.Minute))
		if want := map[bool]codes.Code{true: codes.Internal, false: codes.Canceled}[e.server.out != nil]; status.Code(err) != want {
			t.Errorf("Recv after the hook of the sender has panicked: got %v, want %v", err, want)
		}
	})
}

func TestConsume(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		opts := opened(streamcredit.WithExplicitConsume(), streamcredit.WithWindow(4), streamcredit.WithLowWater(3))
		e := connect(t, k, opts, opts)
		out, in := e.down()
		sendAll(t, out, 1, 4)
		take(t, in, 1, 4)
		blocked := later(func() { sendAll(t, out, 5, 6) })
		if blocked.Load() || out.Credit() != 0 {
			t.Fatalf("with 4 of 4 seen and none done: credit %d, want 0", out.Credit())
		}
		for _, n := range []int{0, -1, 5} {
			wantInvalid(t, "Consume", in.Consume(n), fmt.Sprintf("Consume: got %d, want 1 to 4, which the application has", n))
		}
		if err := in.Consume(2); err != nil {
			t.Errorf("Consume(2) of 4: got %v, want no error", err)
		}
		synctest.Wait()
		if !blocked.Load() {
			t.Error("with 2 done: a Send waits, want room for both")
		}
		in.Cancel("enough") // two are seen and not done
		if err := in.Consume(2); err != nil {
			t.Errorf("Consume after Cancel: got %v, want no error: the application has these", err)
		}
		if err := in.Consume(1); !errors.Is(err, streamcredit.ErrInvalid) {
			t.Errorf("Consume of nothing: got %v, want ErrInvalid", err)
		}
	})
}

// An element that is on its way when the receiver cancels is dropped, and nobody's.
func TestConsumeAfterALateElement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := opened(streamcredit.WithExplicitConsume(), streamcredit.WithWindow(4))
		e := connect(t, converts, opts, opts)
		out, in := e.down()
		sendAll(t, out, 1, 2)
		take(t, in, 1, 2)
		var late sync.WaitGroup
		late.Go(func() { _ = out.send(t.Context(), 3) }) // before or after Cancel has arrived
		in.Cancel("enough")
		late.Wait()
		synctest.Wait()
		if s := in.Stats(); s.Buffered != 0 {
			t.Errorf("after Cancel: got %d buffered, want none", s.Buffered)
		}
		if err := in.Consume(2); err != nil {
			t.Errorf("Consume(2) of 2: got %v, want no error", err)
		}
	})
}

// Two that say Consume for the same elements at once: one is told that it is wrong.
func TestConsumeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 200
		opts := opened(streamcredit.WithExplicitConsume(), streamcredit.WithWindow(2*count))
		e := connect(t, subscribes, opts, opts)
		out, in := e.down()
		sendAll(t, out, 1, count)
		take(t, in, 1, count)
		var right atomic.Int64
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for range count {
					if in.Consume(1) == nil {
						right.Add(1)
					}
				}
			})
		}
		workers.Wait()
		if got, stats := right.Load(), in.Stats(); got != count || stats.Consumed != count {
			t.Errorf("Consume(1) by 8 goroutines for %d elements: got %d right and %d consumed, want %[1]d", count, got, stats.Consumed)
		}
		sendAll(t, out, count+1, count+1) // the peer has found nothing wrong
	})
}

// CloseWithError and a handler that returns the error say the same.
func TestCloseWithErrorIsWhatAHandlerReturns(t *testing.T) {
	for _, err := range []error{
		errScript, context.Canceled, context.DeadlineExceeded, fmt.Errorf("wrapped: %w", context.DeadlineExceeded),
		fmt.Errorf("wrapped: %w", errScript), errors.New("plain"),
	} {
		t.Run(err.Error(), func(t *testing.T) {
			var codes [2]codes.Code
			for i := range codes {
				synctest.Test(t, func(t *testing.T) {
					e := connect(t, subscribes, nil, nil)
					out, in := e.down()
					if i == 0 {
						if err := out.CloseWithError(err); err != nil {
							t.Errorf("CloseWithError: got %v, want no error", err)
						}
					} else {
						e.leave <- err
					}
					_, err := in.recv(within(t, time.Minute))
					codes[i] = status.Code(err)
				})
			}
			if codes[0] != codes[1] {
				t.Errorf("what the receiver gets: got %v from CloseWithError and %v from a handler that returns it, want the same", codes[0], codes[1])
			}
		})
	}
}

// An element that cannot be encoded is an error that says so, whoever sends it.
func TestAnElementThatCannotBeEncoded(t *testing.T) {
	// A payload beyond gRPC's own limit stands for it: bytes encode always.
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, uploads, nil, nil)
		out, ok := e.client.out.(outOf[*demopb.UploadRequest])
		if !ok {
			t.Fatal("not an upload")
		}
		err := out.Send(within(t, time.Minute), &demopb.UploadRequest{Payload: make([]byte, 5<<20)})
		if err == nil { // the server refuses it
			_, err = e.server.in.recv(within(t, time.Minute))
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("an element beyond gRPC's limit: got %v, want %v", err, codes.ResourceExhausted)
		}
	})
}

// A consumer is done with the last element while another one waits already, and leaves: that is
// reported, too.
func TestConsumptionWhileAnotherWaits(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		e := connect(t, k, nil, nil)
		out, in := e.down()
		first, leave := context.WithCancel(t.Context())
		defer leave()
		body := make(chan struct{})
		one := later(func() {
			in.all(first, func(_ int64, err error) bool {
				if err == nil {
					<-body
				}
				return true
			})
		})
		sendAll(t, out, 1, 1)
		synctest.Wait() // it is in the body of its loop
		second, end := context.WithCancel(t.Context())
		defer end()
		later(func() { _, _ = in.recv(second) }) // waits
		leave()
		close(body)
		synctest.Wait()
		if !one.Load() {
			t.Fatal("the first consumer waits, want it to have left")
		}
		if err := out.WaitConsumed(within(t, time.Hour), 1); err != nil {
			t.Errorf("WaitConsumed(1): got %v with %d of %d consumed, want no error", err, out.Consumed(), in.Stats().Consumed)
		}
	})
}
