package recipes_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// consume calls the gateway for each message of the source until ctx ends. The source is closed then.
func consume(ctx context.Context, source broker.Source, gateway demopb.DemoServiceClient, meter *broker.Meter) error {
	gate, err := admit.New(admit.WithName("payments")) // not the gate of the client
	if err != nil {
		return err
	}
	pay := func(ctx context.Context, m *broker.Message) error {
		if len(m.Body) == 0 {
			return broker.Reject(errors.New("the payment is empty")) // a dead letter at once
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := gateway.Work(ctx, &demopb.WorkRequest{Name: string(m.Body)})
		return err // UNAVAILABLE and RESOURCE_EXHAUSTED pause, others count as failed attempts
	}
	return broker.Consume(ctx, source, pay, broker.ConsumeConfig{Gate: gate, Meter: meter})
}

// forward sends the messages of the source to a client, which acknowledges what it consumes.
func forward(stream subscribeServer, source broker.Source) error {
	out, _, err := streamcredit.ServeSend(stream)
	if err != nil {
		return err
	}
	encode := func(_ context.Context, m *broker.Message) (*demopb.SubscribeResponse, error) {
		n, err := strconv.ParseInt(string(m.Body), 10, 64)
		if err != nil {
			return nil, broker.Reject(err)
		}
		return &demopb.SubscribeResponse{Number: n}, nil
	}
	return broker.Serve(stream.Context(), out, source, encode, broker.ServeConfig{})
}

// A memory is a broker with one queue, and no more than an example needs.
type memory struct {
	mu    sync.Mutex // guards the fields below
	queue [][]byte
	ended map[string]string // by body
	ends  chan struct{}     // has room for each end
}

func (q *memory) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	q.mu.Lock()
	bodies := slices.Clone(q.queue[:min(n, len(q.queue))])
	q.queue = q.queue[len(bodies):]
	q.mu.Unlock()
	if len(bodies) == 0 {
		select { // a long poll
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	var messages []*broker.Message
	for _, body := range bodies {
		messages = append(messages, broker.NewMessage(broker.Message{ID: string(body), Body: body}, receipt{q, body}))
	}
	return messages, nil
}

func (q *memory) Close(context.Context) error { return nil }

func (q *memory) end(body []byte, how string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended[string(body)] = how
	q.ends <- struct{}{}
	return nil
}

// wait waits for the ends of n messages.
func (q *memory) wait(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		select {
		case <-q.ends:
		case <-t.Context().Done():
			t.Fatalf("ended messages: got %d, want %d", i, n)
		}
	}
}

type receipt struct {
	q    *memory
	body []byte
}

func (r receipt) Ack(context.Context) error                      { return r.q.end(r.body, "acknowledged") }
func (r receipt) DeadLetter(_ context.Context, why string) error { return r.q.end(r.body, why) }
func (r receipt) Extend(context.Context) error                   { return nil }
func (r receipt) Requeue(context.Context) error {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.queue = append(r.q.queue, r.body)
	return nil
}

func newMemory(t *testing.T, bodies ...string) (*memory, broker.Source) {
	t.Helper()
	q := &memory{ended: map[string]string{}, ends: make(chan struct{}, len(bodies))}
	for _, b := range bodies {
		q.queue = append(q.queue, []byte(b))
	}
	source, err := broker.NewSource(q, broker.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return q, source
}

// gateway is a client of a gateway that refuses its first calls.
type gateway struct {
	demopb.DemoServiceClient
	mu    sync.Mutex // guards calls
	calls int
}

func (g *gateway) Work(context.Context, *demopb.WorkRequest, ...grpc.CallOption) (*demopb.WorkResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls++; g.calls <= 4 {
		return nil, status.Error(codes.Unavailable, "closed")
	}
	return &demopb.WorkResponse{}, nil
}

func TestConsume(t *testing.T) {
	q, source := newMemory(t, "1", "2", "", "3")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	meter := broker.NewMeter("payments")
	go func() { done <- consume(ctx, source, &gateway{}, meter) }()
	q.wait(t, 4)
	stop()
	if err := <-done; err != nil {
		t.Errorf("Consume: got %v, want nil", err)
	}
	if q.ended["1"] != "acknowledged" || q.ended[""] != "the payment is empty" || meter.Stats().Pauses[broker.ByDependency] == 0 {
		t.Errorf("got %v and %+v, want the payments acknowledged after a pause, and the empty one set aside", q.ended, meter.Stats())
	}
}

func TestForward(t *testing.T) {
	q, source := newMemory(t, "1", "2", "x", "3")
	gate, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	stop, target, opts := serve(t, gate, service{subscribe: func(s subscribeServer) error {
		err := forward(s, source)
		done <- err
		return err
	}})
	defer stop()
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in, err := streamcredit.DialReceive(t.Context(), demopb.NewStreamServiceClient(conn).Subscribe)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan []int64, 1)
	go func() {
		var got []int64
		for event, err := range in.All(t.Context()) {
			if err != nil {
				break
			}
			got = append(got, event.GetNumber())
		}
		over <- got
	}()
	q.wait(t, 4)
	in.Close()
	if got := <-over; !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("elements: got %v, want 1, 2 and 3", got)
	}
	<-done
	if q.ended["2"] != "acknowledged" || q.ended["x"] == "acknowledged" {
		t.Errorf("ended: got %v, want the numbers acknowledged", q.ended)
	}
}
