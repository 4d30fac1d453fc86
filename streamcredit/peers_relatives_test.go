package streamcredit_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/racetest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A course is a pipeline: a source, stages and a sink. Each stage passes every keep-th element on.
type course struct {
	stages int
	budget bool                        // the receivers of stages share one
	keep   int64                       // 0: all
	in     []streamcredit.DuplexOption // of the receivers of stages
	source []streamcredit.DuplexOption // of the senders that they receive from
	sink   []streamcredit.DuplexOption
	take   func(t *testing.T, in inlet, count int64) // as the sink; nil: it asks for no end
}

// run has count elements arrive at the sink, within a minute.
func (p *course) run(t *testing.T, count int64) {
	t.Helper()
	keep := max(1, p.keep)
	if p.budget {
		b, err := streamcredit.NewBudget(streamcredit.BudgetConfig{Messages: 20})
		if err != nil {
			t.Fatal(err)
		}
		p.in = append(p.in, streamcredit.WithBudget(b))
	}
	links := make([]*ends, p.stages+1)
	for i := range links {
		client := append(opened(streamcredit.WithManualDemand()), p.in...)
		if i == p.stages {
			client = append(opened(streamcredit.WithManualDemand()), p.sink...)
		}
		links[i] = connect(t, subscribes, client, append(opened(), p.source...))
	}
	later(func() {
		for n, err := int64(1), error(nil); err == nil; n++ {
			err = links[0].server.out.send(links[0].ctx, n)
		}
	})
	for i := range p.stages {
		in := links[i].client.in.(inOf[*demopb.SubscribeResponse]).Receiver
		out := links[i+1].server.out.(outOf[*demopb.SubscribeResponse]).Sender
		later(func() {
			n, kept := int64(0), int64(0)
			err := streamcredit.Pipe(links[i].ctx, in, out, func(context.Context, *demopb.SubscribeResponse) (*demopb.SubscribeResponse, error) {
				if n++; n%keep != 0 {
					return nil, streamcredit.ErrSkip
				}
				kept++
				return event(int(kept)), nil
			})
			if err == nil {
				t.Error("Pipe: got no error, want that the sink has left")
			}
		})
	}
	if p.take == nil {
		p.take = func(t *testing.T, in inlet, count int64) {
			if err := in.Request(math.MaxInt64); err != nil {
				t.Fatal(err)
			}
			take(t, in, 1, count)
		}
	}
	start := time.Now()
	p.take(t, links[p.stages].client.in, count)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("%d elements took %v, want no wait for a timer", count, took)
	}
	for i := range links {
		links[len(links)-1-i].end()
	}
	time.Sleep(time.Minute)
}

// Whatever bounds the streams of a pipeline and however the sink asks, all elements flow.
func TestPipelinesFlow(t *testing.T) {
	steps := func(n int64) func(t *testing.T, in inlet, count int64) {
		return func(t *testing.T, in inlet, count int64) {
			for from := int64(1); from <= count; from += n {
				if err := in.Request(n); err != nil {
					t.Fatal(err)
				}
				take(t, in, from, min(count, from+n-1))
			}
		}
	}
	for name, c := range map[string]struct {
		course
		count int64
	}{
		"unbounded":                       {course{stages: 1}, 3_000},
		"two stages":                      {course{stages: 2}, 1_500},
		"three stages, one of three kept": {course{stages: 3, keep: 3}, 150},
		"one of ten kept":                 {course{stages: 1, keep: 10}, 300},
		"a bound of ten": {course{
			stages: 1, source: opened(streamcredit.WithMaxPeerCredit(10)),
		}, 2_000},
		"a bound of ten that is enforced": {course{
			stages: 2, source: opened(streamcredit.WithMaxPeerDemand(10)),
		}, 2_000},
		"a bound of one, one of three kept": {course{
			stages: 1, keep: 3, source: opened(streamcredit.WithMaxPeerDemand(1)),
		}, 200},
		"a budget":               {course{stages: 1, budget: true}, 2_000},
		"a byte window":          {course{stages: 1, in: opened(streamcredit.WithByteWindow(10)), sink: opened(streamcredit.WithByteWindow(10))}, 2_000},
		"one by one":             {course{stages: 2, take: steps(1)}, 500},
		"one by one, some kept":  {course{stages: 1, keep: 2, take: steps(1)}, 500},
		"1,023 at a time":        {course{stages: 1, take: steps(1_023)}, 3_000},
		"1,025 at a time":        {course{stages: 1, take: steps(1_025)}, 3_000},
		"1,025 at a time, bound": {course{stages: 1, take: steps(1_025), source: opened(streamcredit.WithMaxPeerCredit(10))}, 3_000},
		"asked and drained": {course{stages: 1, take: func(t *testing.T, in inlet, count int64) {
			for got := int64(0); got < count; {
				if err := in.Request(5); err != nil {
					t.Fatal(err)
				}
				got++
				take(t, in, got, got)
				if _, err := in.Drain(within(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
				for s := in.Stats(); s.Buffered > 0; s = in.Stats() {
					got++
					take(t, in, got, got)
				}
			}
		}}, 300},
	} {
		t.Run(name, func(t *testing.T) {
			if racetest.Enabled && c.keep == 0 && c.source == nil {
				t.Skip("the race detector sees the same in the others")
			}
			synctest.Test(t, func(t *testing.T) { c.run(t, c.count) })
		})
	}
}

// However short the interval, two idle ends of weir's that ask for heartbeats live, or refuse it at once.
func TestShortHeartbeatsLive(t *testing.T) {
	for _, beat := range []time.Duration{time.Nanosecond, time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond} {
		t.Run(beat.String(), func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				opts := opened(streamcredit.WithHeartbeat(beat))
				e := &ends{leave: make(chan error, 1), left: make(chan struct{})}
				p := &proxy{left: math.MaxInt}
				served := make(chan error, 1)
				conn := p.through(t, func(r grpc.ServiceRegistrar) {
					e.register(r, k, opts, func(s side, err error) error {
						e.server = s
						served <- err
						if err != nil {
							return err
						}
						return <-e.leave
					})
				})
				e.ctx, e.cancel = context.WithCancel(t.Context())
				defer e.end()
				if err := e.dial(conn, k, opts); err != nil {
					if !errors.Is(err, streamcredit.ErrInvalid) {
						t.Errorf("dial: got %v, want ErrInvalid or none", err)
					}
					return
				}
				if err := <-served; err != nil {
					t.Fatalf("serve: got %v, want no error", err)
				}
				time.Sleep(2 * time.Second)
				out, in := e.down()
				later(func() { sendAll(t, out, 1, 1) })
				take(t, in, 1, 1)
			})
		})
	}
}

// What any of the ways to send has accepted arrives where the handler then returns nil.
func TestEveryWayToSendLosesNothing(t *testing.T) {
	const count = 300
	type both = *streamcredit.Duplex[[]byte, []byte]
	for name, send := range map[string]func(ctx context.Context, b both) (accepted int, err error){
		"TrySend": func(_ context.Context, b both) (accepted int, err error) {
			for range count {
				ok, err := b.Out.TrySend(toBytes(1))
				if err != nil {
					return accepted, err
				}
				if ok {
					accepted++
				}
			}
			return accepted, nil
		},
		"SendSeq": func(ctx context.Context, b both) (int, error) {
			err := b.Out.SendSeq(ctx, func(yield func([]byte) bool) {
				for range count {
					if !yield(toBytes(1)) {
						return
					}
				}
			})
			return count, err
		},
		"Outbox": func(ctx context.Context, b both) (int, error) {
			box, err := streamcredit.NewOutbox(ctx, b.Out, streamcredit.OutboxConfig{})
			if err != nil {
				return 0, err
			}
			for range count {
				if err := box.Put(ctx, toBytes(1)); err != nil {
					return 0, err
				}
			}
			return count, box.Close(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				accepted := make(chan int, 1)
				r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
					b, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
					if err != nil {
						return err
					}
					n, err := send(stream.Context(), b)
					accepted <- n
					return err
				}, &creditpb.Open{Initial: &creditpb.Request{N: count}})
				got := 0
				for {
					_, n, err := r.recv()
					if got += n; err != nil {
						break
					}
				}
				if want := <-accepted; got != want || want == 0 {
					t.Errorf("got %d elements, want the %d that were accepted", got, want)
				}
			})
		})
	}
}
