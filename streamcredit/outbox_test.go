package streamcredit_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

var policies = map[string]streamcredit.Policy{
	"Block": streamcredit.Block, "DropOldest": streamcredit.DropOldest, "DropNewest": streamcredit.DropNewest,
	"Latest": streamcredit.Latest, "Fail": streamcredit.Fail,
}

// box returns an outbox on the sender of a stream whose receiver asks by hand.
func box(t *testing.T, c streamcredit.OutboxConfig, opts ...streamcredit.DuplexOption) (*streamcredit.Outbox[[]byte], outlet, inlet) {
	t.Helper()
	e := connect(t, framesDown, opened(streamcredit.WithManualDemand()), opts)
	b, err := streamcredit.NewOutbox(t.Context(), e.server.out.(outOf[[]byte]).Sender, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(t.Context()) }) // the context has ended
	return b, e.server.out, e.client.in
}

// rest takes everything that is left, and returns it and the end.
func rest(t *testing.T, in inlet) (elements []int64, end error) {
	t.Helper()
	for {
		n, err := in.recv(within(t, time.Minute))
		if err != nil {
			return elements, err
		}
		elements = append(elements, n)
	}
}

// Without demand a full outbox does what its policy says.
func TestAFullOutbox(t *testing.T) {
	const size, puts = 4, 10
	for name, want := range map[string]struct {
		got     []int64
		errs    int
		err     error
		put     uint64
		dropped uint64
	}{
		"Block":      {[]int64{1, 2, 3, 4}, 6, context.DeadlineExceeded, 4, 0},
		"DropOldest": {[]int64{7, 8, 9, 10}, 0, nil, 10, 6},
		"DropNewest": {[]int64{1, 2, 3, 4}, 0, nil, 4, 6},
		"Latest":     {[]int64{10}, 0, nil, 10, 9},
		"Fail":       {[]int64{1, 2, 3, 4}, 6, streamcredit.ErrOutboxFull, 4, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := streamcredit.NewMeter("outbox")
				b, _, in := box(t, streamcredit.OutboxConfig{Capacity: size, Policy: policies[name]},
					streamcredit.WithMeter(m), streamcredit.WithFirstRequestTimeout(time.Hour))
				errs := 0
				for n := int64(1); n <= puts; n++ {
					synctest.Wait()
					if err := b.Put(within(t, time.Second), toBytes(n)); err != nil {
						errs++
						if !errors.Is(err, want.err) {
							t.Errorf("Put %d: got %v, want %v", n, err, want.err)
						}
					}
				}
				if errs != want.errs {
					t.Errorf("Puts that failed: got %d, want %d", errs, want.errs)
				}
				if got, s := b.Stats(), (streamcredit.OutboxStats{Queued: len(want.got), Put: want.put, Dropped: want.dropped}); got != s {
					t.Errorf("Stats: got %+v, want %+v", got, s)
				}
				if got := m.Stats().Dropped; got != want.dropped {
					t.Errorf("dropped, says the meter: got %d, want %d", got, want.dropped)
				}
				closed := later(func() {
					if err := b.Close(within(t, time.Hour)); err != nil {
						t.Errorf("Close: got %v, want no error", err)
					}
				})
				time.Sleep(time.Minute)
				if closed.Load() {
					t.Error("Close has returned before the elements were asked for, want it to wait")
				}
				if err := in.Request(100); err != nil {
					t.Fatal(err)
				}
				got, end := rest(t, in)
				if !slices.Equal(got, want.got) || !errors.Is(end, io.EOF) {
					t.Errorf("received: got %v and %v, want %v and EOF", got, end, want.got)
				}
				synctest.Wait()
				if s := b.Stats(); !closed.Load() || s.Queued != 0 || s.Dropped != want.dropped {
					t.Errorf("at the end: got %+v and closed %t, want nothing queued", s, closed.Load())
				}
			})
		})
	}
}

// Puts and demand in any order: what was put is sent, dropped, or still there, at any time;
// in order, and never more than fit.
func TestAnOutboxLosesNothingButWhatItCounts(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(5, 6))
				size := 1 + r.IntN(6)
				b, out, in := box(t, streamcredit.OutboxConfig{Capacity: size, Policy: policy})
				if policy == streamcredit.Latest {
					size = 1
				}
				var puts, notTaken, last int64
				for step := range 500 {
					switch r.IntN(4) {
					case 0, 1:
						puts++
						switch err := b.Put(within(t, time.Millisecond), toBytes(puts)); {
						case policy == streamcredit.Block && errors.Is(err, context.DeadlineExceeded):
							notTaken++ // and not dropped either: the caller has it
						case policy == streamcredit.Fail && errors.Is(err, streamcredit.ErrOutboxFull):
						case err != nil:
							t.Fatalf("step %d: Put: got %v, want no error", step, err)
						}
					case 2:
						if err := in.Request(r.Int64N(3) + 1); err != nil {
							t.Fatal(err)
						}
					default:
						for in.Stats().Buffered > 0 {
							n, err := in.recv(t.Context())
							if err != nil || n <= last {
								t.Fatalf("step %d: Recv: got %d, %v; want one after %d", step, n, err, last)
							}
							last = n
						}
					}
					synctest.Wait()
					s, sent := b.Stats(), out.Stats().Sent
					if got := int64(sent) + int64(s.Dropped) + int64(s.Queued); got != puts-notTaken {
						t.Fatalf("step %d: sent %d, dropped %d and queued %d are %d, want %d", step, sent, s.Dropped, s.Queued, got, puts-notTaken)
					}
					if s.Queued > size || s.Queued > 0 && out.Credit() > 0 {
						t.Fatalf("step %d: got %d queued with a credit of %d, want at most %d, and none with credit", step, s.Queued, out.Credit(), size)
					}
				}
			})
		})
	}
}

// Several producers that wait for room: none is forgotten, and nothing is lost.
func TestAnOutboxOfManyProducers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const producers, each = 8, 100
		b, _, in := box(t, streamcredit.OutboxConfig{Capacity: 3})
		var putting sync.WaitGroup
		for p := range int64(producers) {
			putting.Go(func() {
				for n := range int64(each) {
					if err := b.Put(t.Context(), toBytes(p<<32|n)); err != nil {
						t.Errorf("Put: got %v, want no error", err)
					}
				}
			})
		}
		var next [producers]int64
		for range producers * each / 10 {
			if err := in.Request(10); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				n, err := in.recv(within(t, time.Minute))
				if err != nil {
					t.Fatalf("Recv: got %v, want no error", err)
				}
				if p := n >> 32; n&0xffffffff != next[p] {
					t.Fatalf("producer %d: got element %d, want %d", p, n&0xffffffff, next[p])
				}
				next[n>>32]++
			}
		}
		putting.Wait()
		if s := b.Stats(); s != (streamcredit.OutboxStats{Put: producers * each}) {
			t.Errorf("Stats: got %+v, want %d put and nothing else", s, producers*each)
		}
	})
}

// What ends an outbox ends those that wait for room, and counts what is left.
func TestAnOutboxEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(t *testing.T, b *streamcredit.Outbox[[]byte], out outlet, in inlet)
		put, close error
	}{
		"the receiver cancels": {
			func(_ *testing.T, _ *streamcredit.Outbox[[]byte], _ outlet, in inlet) { in.Cancel("enough") },
			streamcredit.ErrCanceled, streamcredit.ErrCanceled,
		},
		"the receiver closes": {
			func(_ *testing.T, _ *streamcredit.Outbox[[]byte], _ outlet, in inlet) { _ = in.Close() },
			nil, nil,
		}, // CANCELED, of one kind or the other
		"Close, with a context that ends": {func(t *testing.T, b *streamcredit.Outbox[[]byte], _ outlet, _ inlet) {
			if err := b.Close(within(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: got %v, want the context's error", err)
			}
		}, streamcredit.ErrClosed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, out, in := box(t, streamcredit.OutboxConfig{Capacity: 2})
				for n := range int64(2) {
					if err := b.Put(t.Context(), toBytes(n)); err != nil {
						t.Fatal(err)
					}
				}
				var put error
				putting := later(func() { put = b.Put(t.Context(), toBytes(3)) })
				if putting.Load() {
					t.Fatalf("Put with a full outbox: got %v, want it to wait", put)
				}
				c.end(t, b, out, in)
				synctest.Wait()
				if !putting.Load() || put == nil || c.put != nil && !errors.Is(put, c.put) {
					t.Errorf("Put at the end: returned %t, %v; want %v", putting.Load(), put, c.put)
				}
				if err := b.Put(t.Context(), toBytes(4)); err == nil {
					t.Error("Put after the end: got no error, want one")
				}
				if err := b.Close(within(t, time.Minute)); c.close != nil && !errors.Is(err, c.close) {
					t.Errorf("Close: got %v, want %v", err, c.close)
				}
				if s := b.Stats(); s != (streamcredit.OutboxStats{Put: 2, Dropped: 2}) {
					t.Errorf("Stats: got %+v, want both elements dropped", s)
				}
				if err := out.send(t.Context(), 5); err == nil {
					t.Error("Send after Close of the outbox: got no error, want one")
				}
			})
		})
	}
}

// The context of an outbox ends what it does.
func TestAnOutboxEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, framesDown, opened(streamcredit.WithManualDemand()), nil)
		b, err := streamcredit.NewOutbox(within(t, time.Second), e.server.out.(outOf[[]byte]).Sender, streamcredit.OutboxConfig{Capacity: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), toBytes(1)); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), toBytes(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Put that waited: got %v, want the outbox's context's error", err)
		}
		if err := b.Close(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: got %v, want the outbox's context's error", err)
		}
	})
}

// An aftermath is what Close and the receiver got from an outbox, and its counts.
type aftermath struct {
	closed error
	got    []int64
	end    error
	stats  streamcredit.OutboxStats
}

// oneTooLarge puts 1, an element that is too large for the receiver, and 2 into an outbox, and
// closes it. between is called after each Put.
func oneTooLarge(t *testing.T, policy streamcredit.Policy, between func()) (b aftermath) {
	t.Helper()
	e := connect(t, framesDown, opened(streamcredit.WithMaxMessageBytes(10)), nil)
	box, err := streamcredit.NewOutbox(t.Context(), e.server.out.(outOf[[]byte]).Sender, streamcredit.OutboxConfig{Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	for _, element := range [][]byte{toBytes(1), make([]byte, 11), toBytes(2)} {
		if err := box.Put(t.Context(), element); err != nil && !errors.Is(err, streamcredit.ErrTooLarge) {
			t.Errorf("Put: got %v, want no error, or ErrTooLarge", err)
		}
		between()
	}
	synctest.Wait()
	b.closed = box.Close(within(t, time.Minute))
	b.got, b.end = rest(t, e.client.in)
	b.stats = box.Stats()
	return b
}

// An element that the receiver does not take must not look like the end of all.
func TestAnOutboxThatCannotGoOnSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := oneTooLarge(t, streamcredit.DefaultPolicy, func() {})
		// Either it goes on with the next element, or both sides are told.
		if slices.Equal(b.got, []int64{1, 2}) && errors.Is(b.end, io.EOF) {
			return
		}
		if !errors.Is(b.closed, streamcredit.ErrTooLarge) || errors.Is(b.end, io.EOF) {
			t.Errorf("with an element that is too large: got %v, Close %v and the end %v, want 1 and 2 or an error on both sides", b.got, b.closed, b.end)
		}
	})
}

func TestCloseOfAnOutboxTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, in := box(t, streamcredit.OutboxConfig{})
		if err := in.Request(1); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), toBytes(1)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.Close(within(t, time.Minute)); err != nil {
				t.Errorf("Close: got %v, want no error", err)
			}
		}
		take(t, in, 1, 1)
	})
}

func TestNewOutboxRefusesWhatMakesNoSense(t *testing.T) {
	b, err := streamcredit.NewOutbox[[]byte](t.Context(), nil, streamcredit.OutboxConfig{Capacity: -1, Policy: streamcredit.Fail + 1})
	if b != nil {
		t.Error("NewOutbox: got an outbox, want none")
	}
	wantInvalid(t, "NewOutbox", err, "out: got none, want a Sender of ServeSend, DialSend or their variants\n"+
		"Capacity: got -1, want more than 0, or 0 for 64\nPolicy: got 6, want 0 (DefaultPolicy) to 5 (Fail)")
}

// A stuck transport does not keep Close from ending with its context: neither where elements
// are left, nor where all are on their way and only the end is stuck.
func TestOutboxCloseWithAStuckSend(t *testing.T) {
	for name, count := range map[string]int{"an element": 10, "the end": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				out, err := streamcredit.DialSend(ctx, deaf(t).Upload)
				if err != nil {
					t.Fatal(err)
				}
				box, err := streamcredit.NewOutbox(ctx, out, streamcredit.OutboxConfig{Capacity: 10})
				if err != nil {
					t.Fatal(err)
				}
				for range count {
					_ = box.Put(ctx, &demopb.UploadRequest{Payload: make([]byte, 1<<20)})
				}
				synctest.Wait()
				short := within(t, time.Second)
				closed := later(func() { err = box.Close(short) })
				time.Sleep(time.Hour)
				if !closed.Load() {
					t.Fatal("Close: waits an hour after the end of its context, want its error")
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Close: got %v, want its context's error", err)
				}
			})
		})
	}
}

// Whose outbox or subscription ends before everything was sent is told so.
func TestACutSubscriptionIsNotComplete(t *testing.T) {
	for name, f := range map[string]func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error{
		"topic": func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error {
			var topic streamcredit.Topic[*demopb.SubscribeResponse]
			go func() {
				time.Sleep(100 * time.Millisecond)
				for i := range 5 {
					topic.Publish(event(i + 1))
				}
			}()
			return topic.Serve(ctx, out, streamcredit.OutboxConfig{Policy: streamcredit.DropOldest})
		},
		"outbox": func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error {
			box, err := streamcredit.NewOutbox(context.WithoutCancel(ctx), out, streamcredit.OutboxConfig{})
			if err != nil {
				return err
			}
			for i := range 5 {
				_ = box.Put(ctx, event(i+1))
			}
			return box.Close(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := handlers{subscribe: func(stream subscribeServer) error {
					out, _, err := streamcredit.ServeSend(stream)
					if err != nil {
						return err
					}
					ctx, cancel := context.WithTimeout(stream.Context(), time.Second)
					defer cancel()
					return f(ctx, out)
				}}.start(t)
				in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithManualDemand())
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				if err := in.Request(2); err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, err = range in.All(t.Context()) {
					if err == nil {
						n++
					}
				}
				if n < 5 && err == nil {
					t.Errorf("the subscriber: got %d of 5 elements and a clean end, want an error or ErrGoingAway", n)
				}
			})
		})
	}
}

// An element that is too large for the receiver is dropped and counted by a policy that drops, and
// the others arrive. A policy that drops nothing ends the outbox, and both ends are told.
func TestAnOutboxWithAnElementThatIsTooLarge(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := oneTooLarge(t, policy, synctest.Wait)
				if policy == streamcredit.Block || policy == streamcredit.Fail {
					if !errors.Is(b.closed, streamcredit.ErrTooLarge) || status.Code(b.end) != codes.ResourceExhausted || !slices.Equal(b.got, []int64{1}) {
						t.Errorf("got %v, Close %v and the end %v, want 1 and that both say too large", b.got, b.closed, b.end)
					}
					return
				}
				if b.closed != nil || !errors.Is(b.end, io.EOF) || !slices.Equal(b.got, []int64{1, 2}) {
					t.Errorf("got %v, Close %v and the end %v, want 1, 2 and a proper end", b.got, b.closed, b.end)
				}
				if s := b.stats; s != (streamcredit.OutboxStats{Put: 3, Dropped: 1}) {
					t.Errorf("Stats: got %+v, want 3 put and 1 dropped", s)
				}
			})
		})
	}
}

// An outbox that has sent everything is closed without an error, whatever the context of a later
// Close.
func TestCloseOfAnOutboxWithAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := box(t, streamcredit.OutboxConfig{})
		if err := b.Close(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // Close may see either end first
			if err := b.Close(ctx); err != nil {
				t.Errorf("Close with an ended context: got %v, want no error, since nothing is left", err)
			}
		}
	})
}

// A producer that waits for room learns that an element that is too large has ended the outbox.
func TestAPutThatWaitsWhenItsOutboxEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, framesDown, opened(streamcredit.WithManualDemand(), streamcredit.WithMaxMessageBytes(10)), nil)
		b, err := streamcredit.NewOutbox(t.Context(), e.server.out.(outOf[[]byte]).Sender, streamcredit.OutboxConfig{Capacity: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), make([]byte, 11)); err != nil {
			t.Fatal(err)
		}
		var errs [2]error
		first := later(func() { errs[0] = b.Put(within(t, time.Hour), toBytes(1)) })
		second := later(func() { errs[1] = b.Put(within(t, time.Hour), toBytes(2)) })
		if err := e.client.in.Request(1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !first.Load() || !second.Load() || !errors.Is(errors.Join(errs[:]...), streamcredit.ErrTooLarge) {
			t.Errorf("Puts: returned %t and %t with %v, want both to return, and %v", first.Load(), second.Load(), errs, streamcredit.ErrTooLarge)
		}
		if err := b.Close(within(t, time.Minute)); !errors.Is(err, streamcredit.ErrTooLarge) {
			t.Errorf("Close: got %v, want %v", err, streamcredit.ErrTooLarge)
		}
	})
}

// Close returns when its context ends, and the goroutine that sends ends with it. It does not take
// the wait for demand for a stuck transport.
func TestCloseOfAnOutboxReturnsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, out, in := box(t, streamcredit.OutboxConfig{})
		if err := b.Put(t.Context(), toBytes(1)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := b.Close(within(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: got %v, want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(began); took != time.Second || out.Stats().Waiting > 0 {
			t.Errorf("Close: took %v and left %d waiting, want 1s and none", took, out.Stats().Waiting)
		}
		if _, err := in.recv(within(t, time.Minute)); !errors.Is(err, streamcredit.ErrGoingAway) {
			t.Errorf("Recv: got %v, want %v", err, streamcredit.ErrGoingAway)
		}
	})
}
