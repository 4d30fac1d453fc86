package streamcredit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// An element that is exactly as large as the peer's gRPC takes arrives, even if control waits to be
// written when it is sent.
func TestAnElementAsLargeAsThePeerTakes(t *testing.T) {
	const limit = 4 << 10
	embedded := &demopb.ConvertRequest{Payload: make([]byte, limit-3)}
	bytes := make([]byte, limit-3)
	for _, size := range []int{proto.Size(embedded), proto.Size(&creditpb.Frame{Body: &creditpb.Frame_Data{Data: bytes}})} {
		if size != limit {
			t.Fatalf("got an element of %d bytes, want %d", size, limit)
		}
	}
	t.Run("embedded", func(t *testing.T) {
		asLargeAsTaken(t, converts, limit, func(s side) error {
			return s.out.(outOf[*demopb.ConvertRequest]).Send(t.Context(), embedded)
		})
	})
	t.Run("frames", func(t *testing.T) {
		asLargeAsTaken(t, framesBoth, limit, func(s side) error { return s.out.(outOf[[]byte]).Send(t.Context(), bytes) })
	})
}

// asLargeAsTaken has a client send while a Request waits for the flood rule to let it go.
func asLargeAsTaken(t *testing.T, k kind, limit int, send func(client side) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, k, opened(streamcredit.WithManualDemand()), nil, grpctest.ServerOptions(grpc.MaxRecvMsgSize(limit)))
		time.Sleep(5 * time.Millisecond) // the rule's next token comes before the client's next attempt
		for range 1_000 {                // more than it may write at once
			if err := e.client.in.Request(1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until it is written or waits
		}
		time.Sleep(7 * time.Millisecond)
		if err := send(e.client); err != nil {
			t.Fatal(err)
		}
		if _, err := e.server.in.recv(within(t, time.Second)); err != nil {
			t.Errorf("Recv: got %v, want the element", err)
		}
	})
}
