package streamcredit_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// farAway serves h behind a line that takes d each way.
func (h handlers) farAway(t *testing.T, d time.Duration) demopb.StreamServiceClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	demopb.RegisterStreamServiceServer(server, h)
	served := later(func() { _ = server.Serve(delayedListener{lis, d}) })
	conn, err := grpc.NewClient("passthrough:///far", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := lis.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			return delay(c, d), nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		time.Sleep(2 * d) // what is on the line arrives nowhere
		synctest.Wait()
		if !served.Load() {
			t.Error("the server still serves after Stop")
		}
	})
	return demopb.NewStreamServiceClient(conn)
}

// watch lets a client receive for d from a server that needs so long for each element, with a
// consumer that needs so long for each, over a line that takes way each way. It returns the
// smallest and the largest window from the second half on, and how many elements came.
func watch(t *testing.T, d, way, making, taking time.Duration, opts ...streamcredit.ReceiveOption) (least, most int64, elements int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(s subscribeServer) error {
			out, _, err := streamcredit.ServeSend(s)
			for n := 1; err == nil; n++ {
				time.Sleep(making)
				err = out.Send(s.Context(), event(n))
			}
			return err
		}}.farAway(t, way)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		begin := time.Now()
		for range in.All(t.Context()) {
			elements++
			time.Sleep(taking)
			if time.Since(begin) < d/2 {
				continue
			}
			w := in.Stats().Window
			if most == 0 {
				least = w
			}
			least, most = min(least, w), max(most, w)
			if time.Since(begin) > d {
				break
			}
		}
	})
	return least, most, elements
}

// Over a line of 100 ms each way a window of 64 lets 320 elements a second pass of a source that
// makes 10,000. An automatic one finds what it takes, some 2,000, and not ten times that.
func TestTheWindowFitsTheWay(t *testing.T) {
	const way, making = 100 * time.Millisecond, 100 * time.Microsecond
	least, most, n := watch(t, 20*time.Second, way, making, 0)
	if least < 2000 || most > 20_000 {
		t.Errorf("window: got %d to %d, want from 2,000, what is under way in a round trip, to some times that", least, most)
	}
	if n < 150_000 {
		t.Errorf("elements in 20 s: got %d, want most of 200,000", n)
	}
	if _, _, fixed := watch(t, 20*time.Second, way, making, 0, streamcredit.WithWindow(64)); fixed > 10_000 {
		t.Errorf("elements with a window of 64: got %d, want at most 10,000: the line is not what it says", fixed)
	}
}

// A source that is slow, and not the way to it, makes all elements late alike.
func TestTheWindowOfASlowSourceStays(t *testing.T) {
	if least, most, _ := watch(t, time.Minute, time.Millisecond, 20*time.Millisecond, 0); most > 64 {
		t.Errorf("window: got %d to %d, want at most the 64 of the start", least, most)
	}
}

// With a consumer that is slow elements only queue, and a large window only makes them old.
func TestTheWindowOfASlowConsumerShrinks(t *testing.T) {
	if least, most, _ := watch(t, time.Minute, 0, 0, time.Millisecond); least != 16 || most != 16 {
		t.Errorf("window: got %d to %d, want the smallest, 16", least, most)
	}
}

// The bounds hold both ways.
func TestTheWindowStaysInItsBounds(t *testing.T) {
	bounds := streamcredit.WithAutoWindow(streamcredit.AutoWindow{Min: 100, Max: 200})
	if least, most, _ := watch(t, 10*time.Second, 100*time.Millisecond, 100*time.Microsecond, 0, bounds); least != 200 || most != 200 {
		t.Errorf("window over a long line: got %d to %d, want the largest, 200", least, most)
	}
	if least, most, _ := watch(t, time.Minute, 0, 0, time.Millisecond, bounds); least != 100 || most != 100 {
		t.Errorf("window of a slow consumer: got %d to %d, want the smallest, 100", least, most)
	}
}

// A sender that makes each sixteenth element small does not make a window forget the others.
func TestAutoWindowOfMixedSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const big, bound = 10000, 1 << 20
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			for n := 1; ; n++ {
				if out.Credit() == 0 {
					if err := out.WaitCredit(stream.Context()); err != nil {
						return err
					}
					time.Sleep(20 * time.Millisecond)
				}
				size := big
				if n%16 == 0 {
					size = 0
				}
				if err := out.Send(stream.Context(), &demopb.SubscribeResponse{Payload: make([]byte, size)}); err != nil {
					return err
				}
			}
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithAutoWindow(streamcredit.AutoWindow{Bytes: bound}), streamcredit.WithMaxMessageBytes(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		for range 20000 {
			if _, err := in.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		s := in.Stats()
		mean := int64(s.ReceivedBytes / s.Received)
		if held := int64(s.Buffered) * mean; held > 2*bound {
			t.Errorf("window %d, held: got %d KiB of payload, want at most about AutoWindow.Bytes, %d KiB", s.Window, held>>10, bound>>10)
		}
	})
}

// A largest window below the default least one is taken.
func TestAutoWindowOfAFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, err := streamcredit.DialReceive(t.Context(), spring(t).Subscribe, streamcredit.WithAutoWindow(streamcredit.AutoWindow{Max: 8}))
		if err != nil {
			t.Fatalf("AutoWindow{Max: 8}: got %v, want it taken: zero fields are the defaults", err)
		}
		_ = in.Close()
	})
}
