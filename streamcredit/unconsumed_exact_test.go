package streamcredit_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// A handler that leaves elements behind is never taken for one that has consumed everything,
// however many there were and however close they followed each other.
func TestFinishNeverMissesTheTail(t *testing.T) {
	for _, c := range []struct{ sent, taken int64 }{
		{10, 0}, {10, 3}, {17, 16}, {100, 17}, {300, 99}, {300, 299}, {2_000, 1_999}, {3_000, 2_990}, {5_000, 200},
	} {
		for _, window := range []int{0, 1, 8, 64, 1_000} {
			eachKind(t, func(t *testing.T, k kind) {
				if k == subscribes || k == framesDown {
					t.Skip("the server does not receive there")
				}
				var opts []streamcredit.DuplexOption
				if window > 0 {
					opts = opened(streamcredit.WithWindow(window))
				}
				accepted, consumed, err := hurry(t, k, c.sent, c.taken, opts)
				left, ok := errors.AsType[*streamcredit.UnconsumedError](err)
				switch {
				case accepted == c.taken && err != nil && !errors.Is(err, streamcredit.ErrCanceled):
					t.Errorf("window %d: Finish after all %d: got %v, want none", window, c.taken, err)
				case accepted > c.taken && (!ok || left.Sent != uint64(accepted) || left.Consumed > uint64(c.taken)):
					t.Errorf("window %d: Finish after %d of %d: got %v, want an UnconsumedError of these", window, c.taken, accepted, err)
				case accepted > c.taken && c.taken <= 16 && left.Consumed != uint64(c.taken):
					t.Errorf("window %d: Finish after %d of %d: got %d consumed", window, c.taken, accepted, left.Consumed)
				case consumed > uint64(c.taken):
					t.Errorf("window %d: Consumed after %d: got %d", window, c.taken, consumed)
				}
			})
		}
	}
}

// hurry sends as many elements as the handler lets it, without a pause. The handler returns nil
// after taken of them. accepted is how many Send has taken.
func hurry(t *testing.T, k kind, count, taken int64, opts []streamcredit.DuplexOption) (accepted int64, consumed uint64, err error) {
	t.Helper()
	e := connect(t, k, opened(), opts)
	go func() {
		take(t, e.server.in, 1, taken)
		e.leave <- nil
	}()
	for accepted < count && e.client.out.send(e.ctx, accepted+1) == nil {
		accepted++
	}
	err = e.client.out.Finish(within(t, time.Hour))
	return accepted, e.client.out.Consumed(), err
}

// A handler that takes its time is reported to the last element.
func TestFinishOfAHandlerThatTakesItsTime(t *testing.T) {
	for _, taken := range []int64{1, 16, 17, 50, 99} {
		eachKind(t, func(t *testing.T, k kind) {
			if k == subscribes || k == framesDown {
				t.Skip("the server does not receive there")
			}
			const sent = 100
			_, err := uploadTo(t, k, sent, 0, opened(streamcredit.WithWindow(sent)), func(in inlet) {
				for n := range taken {
					time.Sleep(time.Millisecond)
					take(t, in, n+1, n+1)
				}
			})
			if left, ok := errors.AsType[*streamcredit.UnconsumedError](err); !ok || left.Sent != sent || left.Consumed != uint64(taken) {
				t.Errorf("Finish after %d of %d: got %v, want an UnconsumedError of these", taken, sent, err)
			}
		})
	}
}

// The same over a real connection, where goroutines run at once: what the handler has consumed
// is what Finish says.
func TestFinishIsExactInEveryInterleaving(t *testing.T) {
	const sent = 10
	var handled atomic.Int64
	lis := listen(t)
	server := grpc.NewServer()
	demopb.RegisterStreamServiceServer(server, handlers{upload: func(stream uploadServer) error {
		in, _, err := streamcredit.ServeReceive(stream)
		if err != nil {
			return err
		}
		for range handled.Load() {
			if _, err := in.Recv(stream.Context()); err != nil {
				return err
			}
		}
		return nil
	}})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(lis) }()
	defer func() { server.Stop(); <-served }()
	conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := demopb.NewStreamServiceClient(conn)
	for range 300 {
		taken := rand.N[int64](sent + 1)
		handled.Store(taken)
		out, err := streamcredit.DialSend(within(t, time.Minute), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		accepted := int64(0)
		for accepted < sent && out.Send(within(t, time.Minute), &demopb.UploadRequest{}) == nil {
			accepted++
		}
		err = out.Finish(within(t, time.Minute))
		left, ok := errors.AsType[*streamcredit.UnconsumedError](err)
		switch {
		case accepted == taken && err != nil && !errors.Is(err, streamcredit.ErrCanceled):
			t.Fatalf("Finish after all %d: got %v, want none", taken, err)
		case accepted > taken && (!ok || left.Sent != uint64(accepted) || left.Consumed != uint64(taken)):
			t.Fatalf("Finish after %d of %d: got %v, want an UnconsumedError of these", taken, accepted, err)
		}
	}
}

// Where the read loop writes control at the same moment, the report is not given up.
func TestFinishBesideOtherControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sent, taken = 10, 3
		e := connect(t, converts, opened(streamcredit.WithHeartbeat(100*time.Millisecond)), opened(streamcredit.WithWindow(4)))
		go func() {
			take(t, e.server.in, 1, taken)
			e.leave <- nil
		}()
		accepted := int64(0)
		for accepted < sent && e.client.out.send(e.ctx, accepted+1) == nil {
			accepted++
		}
		err := e.client.out.Finish(within(t, time.Hour))
		if left, ok := errors.AsType[*streamcredit.UnconsumedError](err); !ok || left.Sent != uint64(accepted) || left.Consumed != taken {
			t.Errorf("Finish after %d of %d: got %v, want an UnconsumedError of these", taken, accepted, err)
		}
	})
}

// listen returns a listener on a free port.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
