package streamcredit_test

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// A pipeline is a source, some stages with a Pipe each, and a sink, with a stream of its own
// between any two of them.
type pipeline struct {
	source outlet
	sink   inlet

	streams []*ends
	inlets  []inlet // of the stages
	results []chan error
}

type stage = func(ctx context.Context, e []byte) ([]byte, error)

func same(_ context.Context, e []byte) ([]byte, error) { return e, nil }

// lay lays a pipeline. It ends with the test, if it has not before.
func lay(t *testing.T, ctx context.Context, opts []streamcredit.DuplexOption, stages ...stage) *pipeline {
	t.Helper()
	manual := opened(streamcredit.WithManualDemand())
	first := connect(t, framesDown, manual, nil)
	p := &pipeline{source: first.server.out, sink: first.client.in, streams: []*ends{first}}
	for _, f := range stages {
		next := connect(t, framesUp, opts, manual)
		from, to := p.sink.(inOf[[]byte]).Receiver, next.client.out.(outOf[[]byte]).Sender
		result := make(chan error, 1)
		go func() { result <- streamcredit.Pipe(ctx, from, to, f) }() // the bubble waits for it
		p.inlets, p.results = append(p.inlets, p.sink), append(p.results, result)
		p.sink, p.streams = next.server.in, append(p.streams, next)
	}
	return p
}

// flow sends 1, 2 and so on, until that is an error, which it returns once.
func (p *pipeline) flow(ctx context.Context) <-chan error {
	over := make(chan error, 1)
	go func() {
		for n := int64(1); ; n++ {
			if err := p.source.send(ctx, n); err != nil {
				over <- err
				return
			}
		}
	}()
	return over
}

// asked is all that the source was asked for.
func (p *pipeline) asked() int64 {
	s := p.source.Stats()
	return int64(s.Sent) + s.Credit
}

func (p *pipeline) wantResults(t *testing.T, want error) {
	t.Helper()
	synctest.Wait()
	for i, result := range p.results {
		select {
		case err := <-result:
			if !errors.Is(err, want) && (want == nil || status.Code(err) != status.Code(want) || status.Code(want) == codes.Unknown) {
				t.Errorf("Pipe %d: got %v, want %v", i+1, err, want)
			}
		default:
			t.Errorf("Pipe %d goes on, want it to return %v", i+1, want)
		}
	}
}

// Through three stages the source is asked for what the sink asks for, no more and no
// less, at any time; and nothing gathers on the way.
func TestDemandTravelsThroughThreeStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		p := lay(t, t.Context(), nil, same, same, same)
		p.flow(t.Context())
		var asked, seen int64
		for step := range 300 {
			switch {
			case r.IntN(2) == 0:
				n := r.Int64N(8) + 1
				if err := p.sink.Request(n); err != nil {
					t.Fatal(err)
				}
				asked += n
			case seen < asked:
				seen++
				take(t, p.sink, seen, seen)
			}
			if r.IntN(3) > 0 { // else the next one comes while this one travels
				synctest.Wait()
				if got := p.asked(); got != asked {
					t.Fatalf("step %d: asked of the source: got %d, want the %d that the sink asked for", step, got, asked)
				}
			} else if got := p.asked(); got > asked {
				t.Fatalf("step %d: asked of the source: got %d, want at most the %d that the sink asked for", step, got, asked)
			}
		}
		synctest.Wait()
		for i, in := range p.inlets {
			if s := in.Stats(); s.Buffered != 0 || int64(s.Consumed) != asked {
				t.Errorf("stage %d: got %+v, want nothing in its buffer and %d consumed", i+1, s, asked)
			}
		}
	})
}

// What a stage skips it asks for again.
func TestAPipeAsksForWhatItSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var skipped int64
		odd := func(_ context.Context, e []byte) ([]byte, error) {
			if fromBytes(e)%2 == 0 {
				skipped++
				return nil, streamcredit.ErrSkip
			}
			return e, nil
		}
		p := lay(t, t.Context(), nil, same, odd, same)
		p.flow(t.Context())
		for n := int64(0); n < 30; n += 3 {
			if err := p.sink.Request(3); err != nil {
				t.Fatal(err)
			}
			for i := range int64(3) {
				take(t, p.sink, 2*(n+i)+1, 2*(n+i)+1)
			}
			synctest.Wait()
			if got, want := p.asked(), n+3+skipped; got != want {
				t.Fatalf("asked of the source: got %d, want %d: for %d elements and %d that were skipped", got, want, n+3, skipped)
			}
		}
		// The last elements may all be skipped: the end comes through.
		if err := p.source.Close(); err != nil {
			t.Error(err)
		}
		if err := p.sink.Request(1); err != nil {
			t.Error(err)
		}
		if _, err := p.sink.recv(within(t, time.Minute)); !errors.Is(err, io.EOF) {
			t.Errorf("Recv at the end: got %v, want EOF", err)
		}
		p.wantResults(t, nil)
	})
}

// However the source ends, the sink ends after the elements that were sent before.
func TestEndsTravelDownAPipeline(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(p *pipeline) error
		want, pipe error
	}{
		"Close":              {func(p *pipeline) error { return p.source.Close() }, io.EOF, nil},
		"CloseGoingAway":     {func(p *pipeline) error { return p.source.CloseGoingAway() }, streamcredit.ErrGoingAway, nil},
		"CloseWithError":     {func(p *pipeline) error { return p.source.CloseWithError(errScript) }, errScript, errScript},
		"the handler's nil":  {func(p *pipeline) error { p.streams[0].leave <- nil; return nil }, io.EOF, nil},
		"the handler's":      {func(p *pipeline) error { p.streams[0].leave <- errScript; return nil }, errScript, errScript},
		"the call's context": {func(p *pipeline) error { p.streams[0].cancel(); return nil }, status.Error(codes.Canceled, "context canceled"), status.Error(codes.Canceled, "")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := lay(t, t.Context(), nil, same, same, same)
				if err := p.sink.Request(5); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				sendAll(t, p.source, 1, 3)
				synctest.Wait()
				if err := c.end(p); err != nil {
					t.Errorf("the end: got %v, want no error", err)
				}
				take(t, p.sink, 1, 3)
				if _, err := p.sink.recv(within(t, time.Minute)); !errors.Is(err, c.want) && (status.Code(err) != status.Code(c.want) || status.Code(err) == codes.Unknown) {
					t.Errorf("Recv at the end: got %v, want %v", err, c.want)
				}
				p.wantResults(t, c.pipe)
			})
		})
	}
}

// However the sink ends, the source learns of it, and sends nothing more.
func TestCancelTravelsUpAPipeline(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(p *pipeline)
		pipe error
	}{
		"Cancel":         {func(p *pipeline) { p.sink.Cancel("enough") }, streamcredit.ErrCanceled},
		"leave the loop": {func(p *pipeline) { p.sink.all(context.Background(), func(int64, error) bool { return false }) }, streamcredit.ErrCanceled},
		"the handler":    {func(p *pipeline) { p.streams[3].leave <- nil }, streamcredit.ErrCanceled},
		"the context":    {func(p *pipeline) { p.streams[3].cancel() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := lay(t, t.Context(), nil, same, same, same)
				over := p.flow(t.Context())
				if err := p.sink.Request(3); err != nil {
					t.Fatal(err)
				}
				take(t, p.sink, 1, 2)
				synctest.Wait()
				c.end(p)
				synctest.Wait()
				select {
				case err := <-over:
					if !errors.Is(err, streamcredit.ErrCanceled) {
						t.Errorf("the source's Send: got %v, want ErrCanceled", err)
					}
				default:
					t.Fatal("the source's Send waits, want ErrCanceled")
				}
				if got := p.source.Stats().Sent; got > 3 {
					t.Errorf("elements sent: got %d, want the 3 that were asked for", got)
				}
				if c.pipe != nil {
					p.wantResults(t, c.pipe)
				}
			})
		})
	}
}

// The function of the second stage fails, or ctx ends: that ends both sides.
func TestAPipeFails(t *testing.T) {
	plain := errors.New("the function's own")
	for name, c := range map[string]struct {
		fail error // nil: the context ends
		sink codes.Code
	}{
		"with a status": {errScript, codes.Aborted},
		"plainly":       {plain, codes.Unknown},
		"with its ctx":  {nil, codes.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p := lay(t, t.Context(), nil, same)
				// The stage that fails has a context of its own.
				next := connect(t, framesUp, nil, opened(streamcredit.WithManualDemand()))
				from, to := p.sink.(inOf[[]byte]).Receiver, next.client.out.(outOf[[]byte]).Sender
				result := make(chan error, 1)
				go func() {
					result <- streamcredit.Pipe(ctx, from, to, func(_ context.Context, e []byte) ([]byte, error) {
						if fromBytes(e) == 3 && c.fail != nil {
							return nil, c.fail
						}
						return e, nil
					})
				}()
				over := p.flow(t.Context())
				sink := next.server.in
				if err := sink.Request(3); err != nil {
					t.Fatal(err)
				}
				take(t, sink, 1, 2)
				synctest.Wait()
				if c.fail == nil {
					cancel()
				}
				want := c.fail
				if want == nil {
					want = context.Canceled
					take(t, sink, 3, 3)
				}
				if err := <-result; !errors.Is(err, want) {
					t.Errorf("Pipe: got %v, want %v", err, want)
				}
				if _, err := sink.recv(within(t, time.Minute)); status.Code(err) != c.sink {
					t.Errorf("Recv of the sink: got %v, want %v", err, c.sink)
				}
				if err := <-over; !errors.Is(err, streamcredit.ErrCanceled) {
					t.Errorf("the source's Send: got %v, want ErrCanceled", err)
				}
				p.wantResults(t, streamcredit.ErrCanceled)
			})
		})
	}
}

// A context that ends for a reason ends the pipe for that reason.
func TestAPipeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := lay(t, within(t, time.Second), nil, same)
		over := p.flow(t.Context())
		time.Sleep(2 * time.Second)
		p.wantResults(t, context.DeadlineExceeded)
		if _, err := p.sink.recv(within(t, time.Minute)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("Recv of the sink: got %v, want %v", err, codes.DeadlineExceeded)
		}
		if err := <-over; !errors.Is(err, streamcredit.ErrCanceled) {
			t.Errorf("the source's Send: got %v, want ErrCanceled", err)
		}
	})
}

// A sink that asks for everything gets it; what is asked of the source stays bounded.
func TestAPipeWithUnboundedDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count, ahead = 10_000, 1024
		p := lay(t, t.Context(), nil, same, same)
		p.flow(t.Context())
		if err := p.sink.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		for n := int64(1); n <= count; n++ {
			take(t, p.sink, n, n)
			if s := p.source.Stats(); n%500 == 0 && s.Credit > ahead {
				t.Fatalf("credit of the source: got %d, want at most %d", s.Credit, ahead)
			}
		}
		synctest.Wait()
		stuck := p.source.Stats().Sent
		time.Sleep(time.Minute)
		if got := p.source.Stats().Sent; got != stuck {
			t.Errorf("sent while the sink has stopped: got %d more, want none", got-stuck)
		}
		for i, in := range p.inlets {
			if s := in.Stats(); s.Buffered > ahead {
				t.Errorf("stage %d: got %d elements in the buffer, want at most %d", i+1, s.Buffered, ahead)
			}
		}
	})
}

// Where a sender keeps less credit than it was given, less is what the pipe asks ahead; it asks
// on as its elements leave.
func TestAPipeAsksForNoMoreThanItMaySend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, wanted = 10, 1000
		p := lay(t, t.Context(), opened(streamcredit.WithMaxPeerCredit(most)), same)
		if err := p.sink.Request(wanted); err != nil {
			t.Fatal(err)
		}
		for n := int64(1); n <= wanted; n++ {
			synctest.Wait()
			if got := p.source.Stats().Credit; got > most {
				t.Fatalf("credit of the source after %d elements: got %d, want at most the %d that the stage may send", n-1, got, most)
			}
			sendAll(t, p.source, n, n)
		}
		synctest.Wait()
		if got := p.asked(); got != wanted {
			t.Errorf("asked of the source: got %d, want the %d that the sink asked for", got, wanted)
		}
		if s := p.inlets[0].Stats(); s.Buffered > 0 {
			t.Errorf("in the buffer of the stage: got %d elements, want none", s.Buffered)
		}
		take(t, p.sink, 1, wanted)
	})
}

// A sink that drains gets everything that was asked of the source before in the end, and in
// order; nothing is asked for twice.
func TestADrainBelowAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := lay(t, t.Context(), nil, same, same)
		if err := p.sink.Request(10); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sendAll(t, p.source, 1, 4)
		synctest.Wait()
		if burned, err := p.sink.Drain(within(t, time.Minute)); err != nil || burned != 6 {
			t.Fatalf("Drain: got %d, %v; want 6", burned, err)
		}
		sendAll(t, p.source, 5, 10) // it was asked for these
		synctest.Wait()
		take(t, p.sink, 1, 4)
		if s := p.sink.Stats(); s.Buffered != 0 {
			t.Errorf("after Drain: got %d elements more, want none", s.Buffered)
		}
		if err := p.sink.Request(3); err != nil {
			t.Fatal(err)
		}
		take(t, p.sink, 5, 7)
		synctest.Wait()
		if got := p.asked(); got != 10 {
			t.Errorf("asked of the source: got %d, want 10: the stages have some of these", got)
		}
		if err := p.sink.Request(5); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := p.asked(); got != 12 {
			t.Errorf("asked of the source: got %d, want 12: 4 and 3 and 5", got)
		}
	})
}

// A pipe asks for as much as it was asked for, which a receiver with a window cannot.
func TestAPipeFromAWindowIsRefused(t *testing.T) {
	for name, opt := range map[string]streamcredit.ReceiveOption{
		"fixed": streamcredit.WithWindow(10), "automatic": streamcredit.WithAutoWindow(streamcredit.AutoWindow{}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from := connect(t, framesDown, opened(opt), nil)
				to := connect(t, framesUp, nil, nil)
				err := streamcredit.Pipe(t.Context(), from.client.in.(inOf[[]byte]).Receiver, to.client.out.(outOf[[]byte]).Sender, same)
				wantInvalid(t, "Pipe", err, "in: got a receiver with a window, want WithManualDemand")
				sendAll(t, from.server.out, 1, 1) // both streams are as they were
				take(t, from.client.in, 1, 1)
				sendAll(t, to.client.out, 1, 1)
				take(t, to.server.in, 1, 1)
			})
		})
	}
}

// With explicit Consume nothing is consumed that nobody has called Consume for.
func TestAPipeWithExplicitConsume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stageOf(t, opened(streamcredit.WithManualDemand(), streamcredit.WithExplicitConsume()),
			func(both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], ctx context.Context) error {
				return streamcredit.Pipe(ctx, both.In, both.Out, convert)
			})
		both, err := streamcredit.Dial(t.Context(), client.Convert, streamcredit.WithWindow(64))
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		go func() { sendOn(t.Context(), both.Out, &demopb.ConvertRequest{}) }()
		for range 100 {
			if _, err := both.In.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := both.Out.Consumed(); got != 0 {
			t.Errorf("Consumed: got %d, want 0: nobody has called Consume", got)
		}
	})
}

// A function that calls Consume is the one who does.
func TestAPipeWhoseFunctionIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stageOf(t, opened(streamcredit.WithManualDemand(), streamcredit.WithExplicitConsume()),
			func(both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], ctx context.Context) error {
				return streamcredit.Pipe(ctx, both.In, both.Out, func(ctx context.Context, e *demopb.ConvertRequest) (*demopb.ConvertResponse, error) {
					if err := both.In.Consume(1); err != nil {
						return nil, err
					}
					return convert(ctx, e)
				})
			})
		both, err := streamcredit.Dial(t.Context(), client.Convert, streamcredit.WithWindow(64))
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		go func() { sendOn(t.Context(), both.Out, &demopb.ConvertRequest{}) }()
		for n := range 500 {
			if _, err := both.In.Recv(t.Context()); err != nil {
				t.Fatalf("element %d: got %v, want it", n+1, err)
			}
		}
	})
}

// What a stage has sent itself before is not asked for of its source.
func TestAPipeAfterAHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stageOf(t, opened(streamcredit.WithManualDemand()),
			func(both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], ctx context.Context) error {
				for range 50 { // a header of its own
					if err := both.Out.Send(ctx, &demopb.ConvertResponse{}); err != nil {
						return err
					}
				}
				return streamcredit.Pipe(ctx, both.In, both.Out, convert)
			})
		both, err := streamcredit.Dial(t.Context(), client.Convert, streamcredit.WithManualDemand())
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		if err := both.In.Request(51); err != nil { // the header and one
			t.Fatal(err)
		}
		synctest.Wait()
		if got := both.Out.Credit(); got != 1 {
			t.Errorf("the pipe, asked for 1 element beyond those sent already, asked for %d, want 1", got)
		}
	})
}

func convert(_ context.Context, e *demopb.ConvertRequest) (*demopb.ConvertResponse, error) {
	return &demopb.ConvertResponse{Number: e.GetNumber()}, nil
}

// The cause of the end of its context is the result of a pipe, whatever it waits for.
func TestAPipeReturnsTheCauseOfItsEnd(t *testing.T) {
	cause := errors.New("the reason")
	wait := func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	for name, c := range map[string]struct {
		sent int64
		f    stage
	}{
		"waiting for an element": {0, same},
		"in its function":        {1, wait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				p := lay(t, ctx, nil, c.f)
				if err := p.sink.Request(2); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				sendAll(t, p.source, 1, c.sent)
				synctest.Wait()
				cancel(cause)
				p.wantResults(t, cause)
			})
		})
	}
}

// The last demand is passed on as soon as the stage may send for it, and not in a step.
func TestAPipePassesTheLastDemandOnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, wanted = 10, 13
		p := lay(t, t.Context(), opened(streamcredit.WithMaxPeerCredit(most)), same)
		if err := p.sink.Request(wanted); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sendAll(t, p.source, 1, wanted-most)
		synctest.Wait()
		if got := p.asked(); got != wanted {
			t.Errorf("asked of the source: got %d, want %d", got, wanted)
		}
	})
}
