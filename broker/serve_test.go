package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

type subscribeServer = grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]

// streams is a StreamService whose Subscribe is a function.
type streams struct {
	demopb.UnimplementedStreamServiceServer
	subscribe func(subscribeServer) error
}

func (s streams) Subscribe(stream subscribeServer) error { return s.subscribe(stream) }

// encode makes an element of a message.
func encode(_ context.Context, m *broker.Message) (*demopb.SubscribeResponse, error) {
	return &demopb.SubscribeResponse{Payload: []byte(m.ID)}, nil
}

type encoder = func(context.Context, *broker.Message) (*demopb.SubscribeResponse, error)

// A served is a Serve with its source and its client.
type served struct {
	client demopb.StreamServiceClient
	source chan broker.Source
	result chan error
}

// serve serves a queue to one client.
func (q *queue) serve(t *testing.T, e encoder, c broker.ServeConfig, opts ...streamcredit.SendOption) *served {
	t.Helper()
	s := &served{source: make(chan broker.Source, 1), result: make(chan error, 1)}
	if c.Logger == nil {
		c.Logger = quiet
	}
	h := streams{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream, opts...)
		if err != nil {
			return err
		}
		source := q.source(t, broker.SourceConfig{})
		s.source <- source
		err = broker.Serve(stream.Context(), out, source, e, c)
		s.result <- err
		return err
	}}
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, h) })
	s.client = demopb.NewStreamServiceClient(p.Conn)
	return s
}

func (s *served) dial(t *testing.T, opts ...streamcredit.ReceiveOption) *streamcredit.Receiver[*demopb.SubscribeResponse] {
	t.Helper()
	in, err := streamcredit.DialReceive(t.Context(), s.client.Subscribe, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// The client's demand is the demand at the broker, also while Serve waits for a message,
// and its consumption acknowledges.
func TestServeDemandAndAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(0)
		s := q.serve(t, encode, broker.ServeConfig{})
		in := s.dial(t, streamcredit.WithManualDemand(), streamcredit.WithExplicitConsume())
		time.Sleep(10 * time.Second)
		if got := q.fetched(); got != nil {
			t.Errorf("fetches without demand: got %v, want none", got)
		}
		for _, n := range []int64{1, 2} { // the second while Next blocks
			if err := in.Request(n); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		for i := range 10 {
			q.publish(broker.Message{ID: fmt.Sprint(i)})
		}
		time.Sleep(time.Second)
		wantState(t, q, 7, 3)
		for i := range 3 {
			e, err := in.Recv(t.Context())
			if err != nil || string(e.GetPayload()) != fmt.Sprint(i) {
				t.Fatalf("Recv: got %v and %v, want message %d", e, err, i)
			}
		}
		time.Sleep(time.Minute)
		wantState(t, q, 7, 3) // received is not consumed
		in.Consume(2)
		time.Sleep(time.Minute)
		if got := q.settlements(); !slices.Equal(got, []string{"ack 0", "ack 1"}) {
			t.Errorf("settlements: got %v, want ack 0 and 1 in order", got)
		}
		wantState(t, q, 7, 1) // consuming asks for nothing
		in.Close()
		if err := <-s.result; err == nil {
			t.Error("Serve: got nil, want the reason of the end")
		}
		wantState(t, q, 8, 0)
	})
}

// With a window everything flows, and no more than the window is ever unacknowledged.
func TestServeFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, window = 500, 16
		q := newQueue(n)
		s := q.serve(t, encode, broker.ServeConfig{})
		in := s.dial(t, streamcredit.WithWindow(window))
		for i := range n {
			e, err := in.Recv(t.Context())
			if err != nil || string(e.GetPayload()) != fmt.Sprint(i+1) {
				t.Fatalf("Recv: got %v and %v, want message %d", e, err, i+1)
			}
		}
		over := make(chan error, 1)
		go func() {
			_, err := in.Recv(t.Context())
			over <- err
		}()
		time.Sleep(time.Second)
		q.wantAll(t, "ack", n)
		if q.mu.Lock(); q.most > window+1 {
			t.Errorf("unacked: got up to %d, want at most %d and the one that may come early", q.most, window)
		}
		q.mu.Unlock()
		in.Close()
		<-s.result
		<-over
	})
}

// Unbounded demand of a client does not become unbounded demand at the broker.
func TestServeBoundsDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1000)
		s := q.serve(t, encode, broker.ServeConfig{MaxUnconsumed: 20})
		in := s.dial(t, streamcredit.WithManualDemand(), streamcredit.WithExplicitConsume())
		if err := in.Request(1 << 40); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantState(t, q, 980, 20)
		for range 100 {
			if _, err := in.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
			in.Consume(1)
		}
		time.Sleep(time.Second)
		wantState(t, q, 880, 20)
		in.Close()
		<-s.result
		wantState(t, q, 900, 0)
	})
}

// Whichever side ends, what was consumed is acknowledged, and the rest is given back.
func TestServeEnds(t *testing.T) {
	var broken atomic.Bool
	for name, c := range map[string]struct {
		end  func(in *streamcredit.Receiver[*demopb.SubscribeResponse], s *served, q *queue, cancel context.CancelFunc)
		want func(error) bool
	}{
		"cancel": {func(in *streamcredit.Receiver[*demopb.SubscribeResponse], _ *served, _ *queue, _ context.CancelFunc) {
			in.Cancel("enough")
		}, func(err error) bool { return errors.Is(err, streamcredit.ErrCanceled) }},
		"gone": {func(_ *streamcredit.Receiver[*demopb.SubscribeResponse], _ *served, _ *queue, cancel context.CancelFunc) {
			cancel()
		}, func(err error) bool { return err != nil }},
		"encoder": {func(_ *streamcredit.Receiver[*demopb.SubscribeResponse], _ *served, q *queue, _ context.CancelFunc) {
			q.publish(broker.Message{ID: "bad"})
		}, func(err error) bool { return errors.Is(err, errBroken) }},
		"encoder panics": {func(_ *streamcredit.Receiver[*demopb.SubscribeResponse], _ *served, q *queue, _ context.CancelFunc) {
			q.publish(broker.Message{ID: "panic"})
		}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "panicked") }},
		"source fails": {func(_ *streamcredit.Receiver[*demopb.SubscribeResponse], _ *served, q *queue, _ context.CancelFunc) {
			broken.Store(true)
			q.publish(broker.Message{ID: "the last"})
		}, func(err error) bool { return errors.Is(err, broker.ErrPermanent) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(5)
				broken.Store(false)
				q.beforeFetch = func(context.Context, int) error {
					if broken.Load() {
						return broker.ErrPermanent
					}
					return nil
				}
				s := q.serve(t, func(ctx context.Context, m *broker.Message) (*demopb.SubscribeResponse, error) {
					switch m.ID {
					case "bad":
						return nil, errBroken
					case "panic":
						panic("oh")
					}
					return encode(ctx, m)
				}, broker.ServeConfig{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				in, err := streamcredit.DialReceive(ctx, s.client.Subscribe, streamcredit.WithManualDemand(), streamcredit.WithExplicitConsume())
				if err != nil {
					t.Fatal(err)
				}
				if err := in.Request(8); err != nil {
					t.Fatal(err)
				}
				for range 5 {
					if _, err := in.Recv(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				in.Consume(2)
				time.Sleep(time.Second)
				c.end(in, s, q, cancel)
				if err := <-s.result; !c.want(err) {
					t.Errorf("Serve: got %v, want the reason of the end", err)
				}
				if ready, unacked := q.state(); ready < 3 || unacked != 0 {
					t.Errorf("broker: got %d ready and %d unacked, want at least 3 and none", ready, unacked)
				}
				if got := q.settlements()[:2]; !slices.Equal(got, []string{"ack 1", "ack 2"}) {
					t.Errorf("settlements: got %v, want ack 1 and 2 first", got)
				}
			})
		})
	}
}

// A source that is closed lets the client consume the rest.
func TestServeSourceCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(3)
		s := q.serve(t, encode, broker.ServeConfig{})
		in := s.dial(t, streamcredit.WithWindow(10), streamcredit.WithExplicitConsume())
		time.Sleep(time.Second)
		closed := make(chan error, 1)
		source := <-s.source
		go func() { closed <- source.Close(context.Background()) }()
		time.Sleep(time.Second)
		for range 3 {
			if _, err := in.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
			in.Consume(1)
		}
		if _, err := in.Recv(t.Context()); !errors.Is(err, streamcredit.ErrGoingAway) {
			t.Errorf("Recv: got %v, want ErrGoingAway", err)
		}
		if err := <-s.result; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
		if err := <-closed; err != nil {
			t.Errorf("Close: got %v, want nil", err)
		}
		q.wantAll(t, "ack", 3)
	})
}

// Messages that cannot be sent are skipped, or set aside with the reason. The demand that
// they used comes back.
func TestServeSetsAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(0)
		for _, id := range []string{"skip", "reject", strings.Repeat("x", 5000), "good"} {
			q.publish(broker.Message{ID: id})
		}
		q.mu.Lock()
		q.ready = append(q.ready, &letter{Message: broker.Message{ID: "worn"}, q: q, attempts: 3}, &letter{Message: broker.Message{ID: "good too"}, q: q, attempts: 2})
		q.mu.Unlock()
		s := q.serve(t, func(ctx context.Context, m *broker.Message) (*demopb.SubscribeResponse, error) {
			switch m.ID {
			case "skip":
				return nil, streamcredit.ErrSkip
			case "reject":
				return nil, broker.Reject(errBroken)
			}
			return encode(ctx, m)
		}, broker.ServeConfig{MaxAttempts: 3})
		in := s.dial(t, streamcredit.WithManualDemand(), streamcredit.WithMaxMessageBytes(1000))
		if err := in.Request(2); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"good", "good too"} {
			e, err := in.Recv(t.Context())
			if err != nil || string(e.GetPayload()) != want {
				t.Fatalf("Recv: got %v and %v, want %q", e, err, want)
			}
		}
		time.Sleep(time.Second)
		if got := q.settlements(); len(got) != 6 || got[0] != "ack skip" || len(q.dead) != 3 {
			t.Errorf("settlements: got %.60q and %d dead letters, want 6 and 3", got, len(q.dead))
		}
		if q.dead["reject"] != "broken" || !strings.Contains(q.dead["worn"], "3 deliveries") {
			t.Errorf("reasons: got %q and %q, want those of the encoder and of the attempts", q.dead["reject"], q.dead["worn"])
		}
		in.Close()
		<-s.result
		wantState(t, q, 0, 0)
	})
}

// Acknowledgements that fail are repeated, in order.
func TestServeRepeatsAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(4)
		var tries, reports atomic.Int64
		q.beforeSettle = func(context.Context, string, string) error {
			if tries.Add(1) < 4 {
				return errBroken
			}
			return nil
		}
		s := q.serve(t, encode, broker.ServeConfig{OnError: func(*broker.Message, error) { reports.Add(1); panic("in the hook") }})
		in := s.dial(t, streamcredit.WithWindow(2))
		over := make(chan error, 1)
		go func() {
			for {
				if _, err := in.Recv(t.Context()); err != nil {
					over <- err
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		if got := q.settlements(); !slices.Equal(got, []string{"ack 1", "ack 2", "ack 3", "ack 4"}) || reports.Load() != 3 {
			t.Errorf("settlements: got %v and %d reports, want 4 in order and 3", got, reports.Load())
		}
		in.Close()
		<-s.result
		<-over
	})
}

func TestServeChecks(t *testing.T) {
	err := broker.Serve[*demopb.SubscribeResponse](t.Context(), nil, nil, nil, broker.ServeConfig{})
	wantConfig(t, "Serve without anything", err,
		"out: got nil, want a Sender", "source: got nil, want a Source", "encode: got nil, want a function")
	q := newQueue(0)
	s := q.serve(t, encode, broker.ServeConfig{MaxUnconsumed: -1, MaxAttempts: -1})
	in := s.dial(t)
	wantConfig(t, "Serve with negative bounds", <-s.result,
		"ServeConfig: MaxUnconsumed: got -1, want more than 0, or 0 for 1024",
		"ServeConfig: MaxAttempts: got -1, want more than 0, or 0 for no bound")
	closeIn(t, <-s.source, time.Second, nil)
	in.Close()
}
