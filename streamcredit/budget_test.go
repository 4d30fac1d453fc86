package streamcredit_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/racetest"
	"github.com/weir-go/weir/streamcredit"
)

func newBudget(t testing.TB, c streamcredit.BudgetConfig) *streamcredit.Budget {
	t.Helper()
	b, err := streamcredit.NewBudget(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spring serves elements without end, of the size that the query asks for; with a count
// in the query it sends so many, and then waits.
func spring(t testing.TB) demopb.StreamServiceClient {
	return handlers{subscribe: func(stream subscribeServer) error {
		out, query, err := streamcredit.ServeSend(stream, streamcredit.WithFirstRequestTimeout(0))
		if err != nil {
			return err
		}
		for n := int64(1); ; n++ {
			if query.GetCount() > 0 && n > query.GetCount() {
				<-out.Done()
			}
			e := &demopb.SubscribeResponse{Number: n, Payload: make([]byte, query.GetPayloadBytes())}
			if err := out.Send(stream.Context(), e); err != nil {
				return err
			}
		}
	}}.start(t)
}

type subscription = streamcredit.Receiver[*demopb.SubscribeResponse]

func tap(t testing.TB, client demopb.StreamServiceClient, count int64, size int32, opts ...streamcredit.ReceiveOption) *subscription {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	in, err := streamcredit.DialReceive(ctx, client.Subscribe,
		append(opts, streamcredit.WithSetup(&demopb.SubscribeRequest{Count: count, PayloadBytes: size}))...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// drink takes elements, each with the time that it takes, until ctx ends.
func drink(ctx context.Context, in *subscription, pace time.Duration) (n int) {
	for {
		if _, err := in.Recv(ctx); err != nil {
			return n
		}
		n++
		time.Sleep(pace)
	}
}

// held is what was asked for and is not consumed.
func held(ins []*subscription) (sum int64) {
	for _, in := range ins {
		s := in.Stats()
		sum += s.Outstanding + int64(s.Received-s.Consumed)
	}
	return sum
}

// Streams that stop and go at random never hold more than the bound together, but for the
// one element that each may always have, and the budget's own account is theirs.
func TestBudgetBoundsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, bound = 20, 100
		b := newBudget(t, streamcredit.BudgetConfig{Messages: bound})
		client := spring(t)
		r := rand.New(rand.NewPCG(1, 2))
		var ins []*subscription
		for step := range 1000 {
			if len(ins) < streams && step%10 == 0 {
				ins = append(ins, tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(1+r.IntN(100))))
			}
			in := ins[r.IntN(len(ins))]
			for range r.IntN(20) {
				if in.Stats().Buffered > 0 {
					if _, err := in.Recv(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if r.IntN(4) == 0 {
				time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			synctest.Wait()
			got := held(ins)
			if most := int64(bound + len(ins)); got > most {
				t.Fatalf("step %d: %d streams hold %d, want at most %d", step, len(ins), got, most)
			}
			if s := b.Stats(); s.Streams != len(ins) || s.Messages != got {
				t.Fatalf("step %d: the budget says %+v, want %d streams and %d messages", step, s, len(ins), got)
			}
		}
	})
}

// The same in bytes, where every element has the same size.
func TestBudgetBoundsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, bound, size = 10, 1 << 20, 10 << 10
		b := newBudget(t, streamcredit.BudgetConfig{Bytes: bound})
		client := spring(t)
		var ins []*subscription
		for range streams {
			ins = append(ins, tap(t, client, 0, size, streamcredit.WithBudget(b)))
		}
		weight := int64(proto.Size(&demopb.SubscribeResponse{Number: 100, Payload: make([]byte, size)}))
		for round := range 20 {
			time.Sleep(time.Second)
			synctest.Wait()
			if got, most := held(ins)*weight, int64(bound)+streams*weight; got > most {
				t.Fatalf("round %d: held and asked for: got %d bytes, want at most %d", round, got, most)
			}
			for i, in := range ins {
				for range min(i, in.Stats().Buffered) {
					if _, err := in.Recv(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if s := b.Stats(); s.Bytes < bound/2 || s.Bytes > bound+streams*weight {
			t.Errorf("at the end: got %+v, want most of the %d bytes given away", s, bound)
		}
	})
}

// Equal streams, opened one after the other, end with equal shares.
func TestBudgetIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, bound = 8, 128
		b := newBudget(t, streamcredit.BudgetConfig{Messages: bound})
		client := spring(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var drinkers sync.WaitGroup
		var ins []*subscription
		for range streams {
			in := tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(bound))
			ins = append(ins, in)
			drinkers.Go(func() { drink(ctx, in, 10*time.Millisecond) })
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		for i, in := range ins {
			synctest.Wait()
			s := in.Stats()
			share := s.Outstanding + int64(s.Received-s.Consumed)
			if share < bound/streams/3 || share > 3*bound/streams {
				t.Errorf("stream %d of %d holds %d of %d, want an equal share but for a factor of 3", i+1, streams, share, bound)
			}
			if got := int(s.Consumed); got < 400-10*i {
				t.Errorf("stream %d of %d consumed %d, want about one each 10 ms", i+1, streams, got)
			}
		}
		drinkers.Wait()
	})
}

// A stream that asks for all there is, and stops, leaves enough to the others.
func TestBudgetIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, bound = 5, 64
		b := newBudget(t, streamcredit.BudgetConfig{Messages: bound})
		client := spring(t)
		greedy := tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(1<<20))
		synctest.Wait()
		if got := greedy.Stats().Buffered; got < bound/4 {
			t.Fatalf("the only stream got %d of %d, want a good part", got, bound)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var drinkers sync.WaitGroup
		var counts [streams]int
		for i := range streams {
			in := tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(64))
			drinkers.Go(func() { counts[i] = drink(ctx, in, 10*time.Millisecond) })
		}
		drinkers.Wait()
		for i, n := range counts {
			if n < 900 {
				t.Errorf("stream %d beside a greedy one that has stopped: got %d elements in 10 s, want about one each 10 ms: %v", i+1, n, counts)
			}
		}
	})
}

// Credit that a source leaves unused goes to those who want it.
func TestBudgetReclaimsIdleCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, bound = 4, 64
		b := newBudget(t, streamcredit.BudgetConfig{Messages: bound, ReclaimAfter: time.Second})
		client := spring(t)
		idle := tap(t, client, 1, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(bound))
		if _, err := idle.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := idle.Stats().Outstanding
		if before < bound/4 {
			t.Fatalf("the only stream has %d of %d outstanding, want a good part", before, bound)
		}
		var ins []*subscription
		for range streams {
			ins = append(ins, tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(bound)))
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		first := held(ins)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got, most := idle.Stats().Outstanding, int64(2*bound/(streams+1)); got > most {
			t.Errorf("outstanding of the idle stream: got %d, want at most %d: twice an equal share", got, most)
		}
		if got := held(ins); got <= first {
			t.Errorf("held by the others: got %d, want more than the %d before", got, first)
		}
		// The idle one is not cut off: it can have an element at any time.
		if got := idle.Stats().Outstanding; got < 1 {
			t.Errorf("outstanding of the idle stream: got %d, want at least 1", got)
		}
	})
}

func TestBudgetRefuses(t *testing.T) {
	for name, c := range map[string]streamcredit.BudgetConfig{
		"messages": {Messages: 2},
		"bytes":    {Bytes: 2<<10 + 1, ElementBytes: 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBudget(t, c)
				client := handlers{
					subscribe: func(stream subscribeServer) error {
						out, _, err := streamcredit.ServeSend(stream)
						if err != nil {
							return err
						}
						<-out.Done()
						return nil
					},
					upload: func(stream uploadServer) error {
						in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithBudget(b))
						if err != nil {
							return err
						}
						_, err = in.Recv(stream.Context())
						return err
					},
				}.start(t)
				first, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithBudget(b))
				if err != nil {
					t.Fatal(err)
				}
				up, err := streamcredit.DialSend(t.Context(), client.Upload)
				if err != nil {
					t.Fatal(err)
				}
				if err := up.WaitCredit(within(t, time.Minute)); err != nil {
					t.Fatalf("the second stream: got %v, want demand", err)
				}
				_, err = streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithBudget(b))
				wantExhausted(t, "a third receiver of a client", err)
				refused, err := streamcredit.DialSend(t.Context(), client.Upload)
				if err != nil {
					t.Fatal(err)
				}
				wantExhausted(t, "a third receiver, on a server", refused.Send(within(t, time.Minute), &demopb.UploadRequest{}))
				if got := b.Stats().Streams; got != 2 {
					t.Errorf("streams: got %d, want 2", got)
				}
				if err := first.Close(); err != nil {
					t.Errorf("Close: got %v, want no error", err)
				}
				again, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithBudget(b))
				if err != nil {
					t.Fatalf("after one has left: got %v, want a place", err)
				}
				if err := again.Close(); err != nil {
					t.Errorf("Close: got %v, want no error", err)
				}
			})
		})
	}
}

func wantExhausted(t *testing.T, who string, err error) {
	t.Helper()
	st := status.Convert(err)
	reason := ""
	for _, d := range st.Details() {
		reason = d.(*errdetails.ErrorInfo).GetReason()
	}
	if st.Code() != codes.ResourceExhausted || reason != string(streamcredit.BudgetExhausted) {
		t.Errorf("%s: got %v with reason %q, want %v with %s", who, err, reason, codes.ResourceExhausted, streamcredit.BudgetExhausted)
	}
}

// However a stream ends, all that it had is given back.
func TestBudgetIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, e *ends, out outlet, in inlet){
		"at once":                 func(*testing.T, *ends, outlet, inlet) {},
		"everything was consumed": func(t *testing.T, _ *ends, _ outlet, in inlet) { take(t, in, 1, 8) },
		"by Cancel, with some in the buffer": func(t *testing.T, _ *ends, _ outlet, in inlet) {
			take(t, in, 1, 3)
			in.Cancel("enough")
		},
		"by Close, with some in the buffer": func(t *testing.T, _ *ends, _ outlet, in inlet) {
			take(t, in, 1, 3)
			_ = in.Close() // it cannot tell of a status
		},
		"in the middle of a loop": func(t *testing.T, _ *ends, _ outlet, in inlet) {
			in.all(t.Context(), func(n int64, _ error) bool { return n < 3 })
		},
		"with the sender's error": func(t *testing.T, _ *ends, out outlet, in inlet) {
			_ = out.CloseWithError(errScript)
			take(t, in, 1, 8)
			_, _ = in.recv(t.Context())
		},
		"by the client's hand": func(_ *testing.T, e *ends, _ outlet, _ inlet) { e.cancel() },
		"when the handler has returned": func(t *testing.T, e *ends, _ outlet, in inlet) {
			take(t, in, 1, 3)
			e.leave <- nil
			<-e.left
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, explicit := range []bool{false, true} {
				eachKind(t, func(t *testing.T, k kind) {
					b := newBudget(t, streamcredit.BudgetConfig{Messages: 1000, Bytes: 1 << 20, ElementBytes: 100})
					opts := opened(streamcredit.WithBudget(b), streamcredit.WithWindow(8))
					if explicit {
						opts = append(opts, streamcredit.WithExplicitConsume())
					}
					e := connect(t, k, opts, opts)
					out, in := e.down()
					sendAll(t, out, 1, 8)
					synctest.Wait()
					if s := b.Stats(); s.Messages < 8 || s.Bytes == 0 {
						t.Fatalf("with 8 elements in the buffer: got %+v, want them counted", s)
					}
					end(t, e, out, in)
					if e.client.in != nil {
						_ = e.client.in.Close() // the client's duty, when it is done; the server need only return
					}
					e.end()
					<-e.left
					time.Sleep(time.Minute)
					synctest.Wait()
					if got := b.Stats(); got != (streamcredit.BudgetStats{}) {
						t.Errorf("explicit %t: at the end: got %+v, want nothing taken", explicit, got)
					}
				})
			}
		})
	}
}

// Many streams that have stopped go on when their consumers do.
func TestBudgetOfManyStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams, bound := 200, int64(1000)
		if racetest.Enabled {
			streams, bound = 60, 300
		}
		b := newBudget(t, streamcredit.BudgetConfig{Messages: bound})
		client := spring(t)
		var ins []*subscription
		for range streams {
			ins = append(ins, tap(t, client, 0, 10, streamcredit.WithBudget(b)))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, most := held(ins), bound+int64(streams); got > most {
			t.Errorf("stopped streams hold %d, want at most %d", got, most)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		counts := make([]int, streams)
		var drinkers sync.WaitGroup
		for i, in := range ins {
			drinkers.Go(func() { counts[i] = drink(ctx, in, 500*time.Millisecond) })
		}
		drinkers.Wait()
		for i, n := range counts {
			if n < 100 {
				t.Errorf("stream %d: got %d elements in a minute, want about two a second", i+1, n)
			}
		}
	})
}

func TestNewBudgetRefusesWhatMakesNoSense(t *testing.T) {
	const orZero = ", want more than 0, or 0 for "
	for want, c := range map[string]streamcredit.BudgetConfig{
		"Bytes and Messages: got 0 for both, want at least one of them more than 0":        {},
		"Bytes: got -1" + orZero + "no bound":                                              {Bytes: -1},
		"Messages: got -1" + orZero + "no bound":                                           {Messages: -1},
		"Bytes: got -2" + orZero + "no bound":                                              {Messages: 1, Bytes: -2},
		"ElementBytes: got -1" + orZero + "the default":                                    {Bytes: 1, ElementBytes: -1},
		"ReclaimAfter: got -1ns" + orZero + "1s":                                           {Bytes: 1, ReclaimAfter: -1},
		"ElementBytes: got 2, want at most Bytes (1), or no stream could have one element": {Bytes: 1, ElementBytes: 2},
		"Bytes: got -3" + orZero + "no bound\nMessages: got -4" + orZero + "no bound":      {Bytes: -3, Messages: -4},
	} {
		b, err := streamcredit.NewBudget(c)
		if b != nil {
			t.Errorf("NewBudget(%+v): got a budget, want none", c)
		}
		wantInvalid(t, "NewBudget", err, want)
	}
}

// Manual demand is bounded by the budget, too: what is beyond it is asked for when there is room.
func TestBudgetAndManualDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 10})
		in := tap(t, spring(t), 0, 10, streamcredit.WithBudget(b), streamcredit.WithManualDemand())
		defer in.Close()
		if err := in.Request(1000); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := in.Stats(); s.Buffered > 10 {
			t.Errorf("in the buffer: got %d elements (budget %+v), want at most the 10 that the budget has", s.Buffered, b.Stats())
		}
		for n := range 1000 {
			if _, err := in.Recv(within(t, time.Minute)); err != nil {
				t.Fatalf("element %d of 1000: got %v, want it", n+1, err)
			}
		}
		if _, err := in.Recv(within(t, time.Minute)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("beyond what was asked for: got %v, want nothing", err)
		}
		if err := in.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := in.Stats(); s.Buffered > 10 || s.Outstanding > 10 {
			t.Errorf("of demand without bound: got %+v, want at most the 10 that the budget has", s)
		}
		burned, err := in.Drain(t.Context())
		if err != nil || burned < 1<<62 {
			t.Errorf("Drain: got %d, %v, want what was not asked for yet", burned, err)
		}
		for range in.Stats().Buffered {
			if _, err := in.Recv(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := in.Recv(within(t, time.Minute)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after Drain: got %v, want nothing", err)
		}
	})
}

// A budget without end is no reason to give nothing.
func TestABudgetOfAllThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: math.MaxInt64})
		in := tap(t, spring(t), 1, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(64))
		defer in.Close()
		if s := in.Stats(); s.Outstanding < 60 {
			t.Errorf("asked for out of a budget of MaxInt64 messages: got %d, want 64", s.Outstanding)
		}
	})
}

// Where nothing happens nothing is taken back and given again, even if all want more.
func TestAnIdleBudgetIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 100})
		m := streamcredit.NewMeter("x")
		client := handlers{subscribe: func(stream subscribeServer) error {
			_, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			<-stream.Context().Done()
			return nil
		}}.start(t)
		for range 4 {
			in := tap(t, client, 0, 0, streamcredit.WithBudget(b), streamcredit.WithWindow(64), streamcredit.WithMeter(m))
			defer in.Close()
		}
		time.Sleep(10 * time.Second)
		before := m.Stats().ControlSent
		time.Sleep(time.Minute)
		if got := m.Stats().ControlSent - before; got > 40 {
			t.Errorf("control messages of 4 streams on which nothing happens for a minute: got %d, want next to none", got)
		}
	})
}

// What a budget gives bit by bit to a stream that is not used adds up before it would be a flood.
func TestBitsOfABudgetAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 6000, ReclaimAfter: time.Hour})
		client := spring(t)
		busy := tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithManualDemand())
		if err := busy.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		idle := tap(t, client, 1, 10, streamcredit.WithBudget(b), streamcredit.WithManualDemand())
		if err := idle.Request(1 << 20); err != nil {
			t.Fatal(err)
		}
		for range 6000 {
			if _, err := busy.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if _, err := idle.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := idle.Recv(within(t, time.Minute)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the idle stream: got %v, want it to go on", err)
		}
	})
}

// What has come in a call that the client then cancels is dropped, and so counts no more.
func TestBudgetOfACanceledCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 1000})
		ended := make(chan error, 1)
		client := handlers{upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(10), streamcredit.WithBudget(b))
			if err != nil {
				return err
			}
			<-stream.Context().Done()
			time.Sleep(time.Minute) // it is busy with something else
			if got := b.Stats().Messages; got != int64(in.Stats().Buffered) {
				t.Errorf("messages of the budget: got %d, want the %d that the handler can receive", got, in.Stats().Buffered)
			}
			_, err = in.Recv(context.Background())
			ended <- err
			return nil
		}}.start(t)
		ctx, cancel := context.WithCancel(t.Context())
		out, err := streamcredit.DialSend(ctx, client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := out.Send(ctx, &demopb.UploadRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		cancel()
		if err := <-ended; status.Code(err) != codes.Canceled {
			t.Errorf("Recv: got %v, want CANCELED", err)
		}
	})
}
