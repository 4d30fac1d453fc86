package recipes_test

import (
	"context"
	"log"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/streamcredit"
	"github.com/weir-go/weir/weirtest"
)

// dial returns a connection whose calls come back when the server asks for it, within a budget of retries.
func dial(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	weir, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}})
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(target, append(opts, weir...)...)
}

// work makes a call. If every attempt is refused, it says by whom.
func work(ctx context.Context, client demopb.DemoServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := client.Work(ctx, &demopb.WorkRequest{Name: "you"})
	if r, ok := interceptors.RefusalFrom(err); ok {
		log.Printf("refused by gate %s (%s), which asks for %v of patience", r.Gate, r.Reason, r.RetryAfter)
	}
	return err
}

// The server refuses the first two attempts and serves the third.
func TestClient(t *testing.T) {
	gate, err := weirtest.NewGate(admit.QueueFull, 2)
	if err != nil {
		t.Fatal(err)
	}
	stop, target, memory := serve(t, gate, service{})
	defer stop()
	conn, err := dial(target, memory...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := work(t.Context(), demopb.NewDemoServiceClient(conn)); err != nil {
		t.Errorf("got %v, want an answer at the third attempt", err)
	}
	if got := gate.Stats().Ended[admit.Success]; got != 1 {
		t.Errorf("served: got %d calls, want 1", got)
	}
}

// The handler of the server, which sends. Send waits until the client has asked for the message.
func subscribe(stream subscribeServer) error {
	out, query, err := streamcredit.ServeSend(stream)
	if err != nil {
		return err
	}
	for n := range query.GetCount() {
		if err := out.Send(stream.Context(), &demopb.SubscribeResponse{Number: n + 1}); err != nil {
			return err
		}
	}
	return out.Finish(stream.Context()) // returns when the client has consumed everything
}

// The client asks for 64 messages, and for more as it consumes them.
func follow(ctx context.Context, client demopb.StreamServiceClient, show func(int64)) error {
	in, err := streamcredit.DialReceive(ctx, client.Subscribe,
		streamcredit.WithSetup(&demopb.SubscribeRequest{Count: 3}), streamcredit.WithWindow(64))
	if err != nil {
		return err
	}
	defer in.Close()
	for event, err := range in.All(ctx) {
		if err != nil {
			return err
		}
		show(event.GetNumber()) // the end of the body consumes the message
	}
	return nil
}

func TestStream(t *testing.T) {
	gate, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	stop, target, memory := serve(t, gate, service{subscribe: subscribe})
	defer stop()
	conn, err := grpc.NewClient(target, memory...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got []int64
	err = follow(t.Context(), demopb.NewStreamServiceClient(conn), func(n int64) { got = append(got, n) })
	if want := []int64{1, 2, 3}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
