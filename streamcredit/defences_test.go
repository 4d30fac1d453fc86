package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/racetest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// What a peer says of itself may be a whole message; hardly any of it is kept.
func TestAHugeOpenIsNotKept(t *testing.T) {
	client := handlers{subscribe: func(stream subscribeServer) error {
		_, _, err := streamcredit.ServeSend(stream, streamcredit.WithHandshakeTimeout(time.Hour)) // it takes long to read
		if err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}}.start(t)
	const streams = 4
	before := heap()
	var raws []demopb.StreamService_SubscribeClient
	for range streams {
		raw, err := client.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open := helloFrom(&creditpb.Open{WillReceive: true})
		open.GetOpen().Features = make([]creditpb.Feature, 1_000_000)
		if err := raw.Send(&demopb.SubscribeRequest{Credit: open}); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Recv(); err != nil {
			t.Fatal(err)
		}
		raws = append(raws, raw)
	}
	grown := (heap() - before) / streams
	if grown > 1<<20 {
		t.Errorf("heap for each open stream, which has asked for nothing: got %d KiB, want a few", grown>>10)
	}
	runtime.KeepAlive(raws)
}

// Where it is HTTP/2 that slows a sender down, bytes are bounded, too.
func TestAnUnawareClientIsBounded(t *testing.T) {
	var buffered atomic.Int64
	checked := make(chan struct{})
	const size = 64 << 10
	client := handlers{upload: func(stream uploadServer) error {
		in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithPlainClients())
		if err != nil {
			return err
		}
		for last := -1; ; {
			time.Sleep(300 * time.Millisecond)
			now := in.Stats().Buffered
			if now == last {
				buffered.Store(int64(now))
				close(checked)
				return nil
			}
			last = now
		}
	}}.start(t)
	raw, err := client.Upload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		payload := make([]byte, size)
		for err := error(nil); err == nil; {
			err = raw.Send(&demopb.UploadRequest{Payload: payload})
		}
	}()
	<-checked
	if got := buffered.Load() * size; got > 16<<20 {
		t.Errorf("payload held for a handler that reads nothing: got %d MiB (%d elements), want what HTTP/2's flow control alone allows", got>>20, buffered.Load())
	}
}

// A peer that reports an element consumed which is being written, and is refused then by an interceptor.
func TestConsumedOfWhatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var panicked atomic.Value
		client := handlers{subscribe: func(stream subscribeServer) (err error) {
			defer func() {
				if p := recover(); p != nil {
					panicked.Store(fmt.Sprint(p))
				}
			}()
			out, _, err := streamcredit.ServeSend(refusing{stream})
			if err != nil {
				return err
			}
			return out.Send(stream.Context(), event(-1))
		}}.start(t)
		raw, err := client.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Send(&demopb.SubscribeRequest{Credit: helloFrom(&creditpb.Open{WillReceive: true, MaxBufferedBytes: 1000, Initial: &creditpb.Request{N: 5}})}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		_ = raw.Send(&demopb.SubscribeRequest{Credit: &creditpb.Control{Kind: &creditpb.Control_Request{Request: &creditpb.Request{Consumed: 1}}}})
		for {
			if _, err := raw.Recv(); err != nil {
				break
			}
		}
		synctest.Wait()
		if p := panicked.Load(); p != nil {
			t.Errorf("the server's Send panicked: %v", p)
		}
	})
}

// refusing is a stream whose interceptor refuses some messages, slowly.
type refusing struct {
	subscribeServer
}

func (r refusing) Send(m *demopb.SubscribeResponse) error {
	if m.GetNumber() == -1 {
		time.Sleep(time.Second)
		return status.Error(codes.Internal, "refused by an interceptor, or not to be encoded")
	}
	return r.subscribeServer.Send(m)
}

// Demand that an application issues one by one adds up before it would be a flood.
func TestRequestsAddUp(t *testing.T) {
	n := 5000
	if racetest.Enabled {
		n = 2500 // at 200 a second that is still a flood
	}
	for _, pause := range []time.Duration{0, 5 * time.Millisecond} { // at once, or twice as often as the flood rule allows for
		synctest.Test(t, func(t *testing.T) {
			client := handlers{subscribe: func(stream subscribeServer) error {
				out, _, err := streamcredit.ServeSend(stream)
				if err != nil {
					return err
				}
				time.Sleep(time.Duration(n)*pause + time.Second) // the source is not ready yet
				for i := range n {
					if err := out.Send(stream.Context(), event(i+1)); err != nil {
						return err
					}
				}
				return out.Finish(stream.Context())
			}}.start(t)
			in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithManualDemand())
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			for range n {
				if err := in.Request(1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(pause)
			}
			for i := range n {
				if _, err := in.Recv(t.Context()); err != nil {
					t.Fatalf("every %v: element %d: got %v, want it", pause, i+1, err)
				}
			}
		})
	}
}

// A bound for credit that is less than the window slows nothing down for good.
func TestMaxPeerCreditBelowAWindow(t *testing.T) {
	for name, opts := range map[string][]streamcredit.ReceiveOption{
		"default": nil, "window 64": {streamcredit.WithWindow(64)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := handlers{subscribe: func(stream subscribeServer) error {
					out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMaxPeerCredit(10))
					if err != nil {
						return err
					}
					for i := range 1000 {
						if err := out.Send(stream.Context(), event(i+1)); err != nil {
							return err
						}
					}
					return out.Finish(stream.Context())
				}}.start(t)
				ctx := within(t, time.Hour)
				in, err := streamcredit.DialReceive(ctx, client.Subscribe, opts...)
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				n := 0
				for _, err := range in.All(ctx) {
					if err != nil {
						t.Fatalf("after %d elements: %v; stats %+v", n, err, in.Stats())
					}
					n++
				}
				if n != 1000 {
					t.Errorf("got %d elements, want 1000", n)
				}
			})
		})
	}
}

// A receiver that asked, and took it back, has asked.
func TestFirstRequestWasBeforeADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			<-out.Done()
			return out.Send(stream.Context(), event(1))
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithManualDemand())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := in.Request(10); err != nil {
			t.Fatal(err)
		}
		if n, err := in.Drain(t.Context()); n != 10 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := in.Recv(within(t, time.Minute)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Recv: got %v, want it to wait: the receiver did ask once", err)
		}
	})
}

// Demand without bound on a duplex is refused, even in two steps while a drain is under way.
func TestUnboundedDemandInTwoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		client := handlers{convert: func(stream convertServer) error {
			_, _ = stream.Recv()
			_ = stream.Send(&demopb.ConvertResponse{Credit: helloFrom(&creditpb.Open{WillReceive: true, WillSend: true})})
			for {
				m, err := stream.Recv()
				if err != nil {
					return err
				}
				r := m.GetCredit().GetRequest()
				asked.Store(max(asked.Load(), r.GetN()))
				if r.GetDrain() {
					time.Sleep(time.Second)
					_ = stream.Send(&demopb.ConvertResponse{Credit: &creditpb.Control{Kind: &creditpb.Control_Drained{Drained: &creditpb.Drained{}}}})
				}
			}
		}}.start(t)
		both, err := streamcredit.Dial(t.Context(), client.Convert, streamcredit.WithManualDemand())
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		synctest.Wait()
		later(func() { _, _ = both.In.Drain(t.Context()) })
		synctest.Wait()
		errs := []error{both.In.Request(math.MaxInt64/2 + 1), both.In.Request(math.MaxInt64/2 + 1)}
		time.Sleep(time.Minute)
		if asked.Load() == math.MaxInt64 {
			t.Errorf("demand on a stream that sends, too: got it unbounded on the wire (Request returned %v), want it refused", errs)
		}
	})
}

// Drain by the only goroutine that receives ends, though all that was sent before has to come first.
func TestDrainOfUnboundedDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			for i := 0; ; i++ {
				if err := out.Send(stream.Context(), event(i+1)); err != nil {
					return err
				}
			}
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithManualDemand())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := in.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := in.Drain(within(t, time.Hour)); err != nil {
			t.Errorf("Drain: got %v after an hour, want an answer: it does not wait for the application", err)
		}
	})
}

// While nobody makes room for what comes, the peer that sends it is not to blame for the silence.
func TestAStoppedConsumerIsNotASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			for i := range 1200 {
				if err := out.Send(stream.Context(), event(i+1)); err != nil {
					return err
				}
			}
			return out.Finish(stream.Context())
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithManualDemand(), streamcredit.WithHeartbeat(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := in.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		n := 0
		for _, err := range in.All(t.Context()) {
			if err != nil {
				t.Fatalf("a consumer that had stopped for a minute: after %d elements got %v, want all 1200", n, err)
			}
			n++
		}
		if n != 1200 {
			t.Errorf("got %d, want 1200", n)
		}
	})
}

// A client that has half-closed and only receives still gets the heartbeats that it asked for.
func TestHeartbeatsAfterAHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			time.Sleep(time.Minute)
			_ = out.Send(stream.Context(), event(1))
			return out.Close()
		}}.start(t)
		raw, err := client.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Send(&demopb.SubscribeRequest{Credit: helloFrom(&creditpb.Open{WillReceive: true, Initial: &creditpb.Request{N: 10}, Heartbeat: durationpb.New(time.Second)})}); err != nil {
			t.Fatal(err)
		}
		_ = raw.CloseSend()
		beats := 0
		for {
			m, err := raw.Recv()
			if err != nil || m.GetCredit() == nil {
				break
			}
			if m.GetCredit().GetHeartbeat() != nil {
				beats++
			}
		}
		if beats < 20 {
			t.Errorf("heartbeats, one each second for a silent minute: got %d, want about 59", beats)
		}
	})
}

// No element may be sent while the byte window is full, whatever was asked for.
func TestCreditKnowsTheByteWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{upload: func(stream uploadServer) error {
			_, _, err := streamcredit.ServeReceive(stream, streamcredit.WithByteWindow(100), streamcredit.WithWindow(64))
			if err != nil {
				return err
			}
			<-stream.Context().Done()
			return nil
		}}.start(t)
		out, err := streamcredit.DialSend(t.Context(), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Send(t.Context(), &demopb.UploadRequest{Payload: make([]byte, 200)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sent, err := out.TrySend(&demopb.UploadRequest{})
		if got := out.Credit(); !sent && err == nil && got > 0 {
			t.Errorf("Credit, how many elements may be sent now: got %d, want 0: TrySend could not", got)
		}
	})
}

// What a budget grants while Open is being written is asked for.
func TestAGrantWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 100})
		client := spring(t)
		first := tap(t, client, 1, 0, streamcredit.WithBudget(b), streamcredit.WithWindow(1000))
		synctest.Wait()
		go func() {
			time.Sleep(500 * time.Millisecond)
			_ = first.Close()
		}()
		second, err := streamcredit.DialReceive(t.Context(), func(ctx context.Context, opts ...grpc.CallOption) (*slowOpen, error) {
			stream, err := client.Subscribe(ctx, opts...)
			return &slowOpen{StreamService_SubscribeClient: stream}, err
		}, streamcredit.WithBudget(b), streamcredit.WithWindow(1000), streamcredit.WithLowWater(999), streamcredit.WithSetup(&demopb.SubscribeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if s := second.Stats(); s.Outstanding > 0 {
			t.Errorf("of what was asked for %d have not come after a second, from a source without end (%+v): the Request was not written", s.Outstanding, s)
		}
	})
}

// slowOpen is a client's stream whose first Send takes a second.
type slowOpen struct {
	demopb.StreamService_SubscribeClient
	n atomic.Int64
}

func (s *slowOpen) Send(m *demopb.SubscribeRequest) error {
	if s.n.Add(1) == 1 {
		defer time.Sleep(time.Second)
	}
	return s.StreamService_SubscribeClient.Send(m)
}

// A receiver that bounds bytes and never says what it has consumed costs its sender no memory that
// grows: the sender waits.
func TestSizesAreBounded(t *testing.T) {
	if racetest.Enabled {
		t.Skip("a count of a million, by one goroutine")
	}
	const most = 1 << 20
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := newLoose(ctx, &creditpb.Open{WillReceive: true, MaxBufferedBytes: 1, Initial: &creditpb.Request{N: math.MaxInt64}})
	both, _, err := streamcredit.ServeFrames(s, streamcredit.WithSendOnly())
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for both.Out.Credit() > 0 {
		if err := both.Out.Send(ctx, nil); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	if sent != most {
		t.Errorf("elements of no bytes that were sent without any report: got %d, want %d", sent, most)
	}
}

// An element that a client's interceptor refuses is refused, and the stream goes on.
func TestAClientsInterceptorRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		received := 0
		client := handlers{upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(stream)
			if err != nil {
				return err
			}
			for _, err := range in.All(stream.Context()) {
				if err != nil {
					return err
				}
				received++
			}
			return nil
		}}.start(t)
		out, err := streamcredit.DialSend(t.Context(), func(ctx context.Context, o ...grpc.CallOption) (choosy, error) {
			s, err := client.Upload(ctx, o...)
			return choosy{s}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		for n, want := range []error{nil, errRefused, nil} {
			number := int64(1)
			if want != nil {
				number = -1
			}
			if err := out.Send(within(t, time.Second), &demopb.UploadRequest{Number: number}); !errors.Is(err, want) {
				t.Errorf("Send %d: got %v, want %v", n, err, want)
			}
		}
		if err := out.Finish(within(t, time.Second)); err != nil || received != 2 {
			t.Errorf("Finish: got %v, and %d elements received, want no error, and 2", err, received)
		}
	})
}

var errRefused = errors.New("refused by an interceptor")

// choosy is a client's stream whose interceptor refuses elements that are negative.
type choosy struct {
	demopb.StreamService_UploadClient
}

func (s choosy) Send(m *demopb.UploadRequest) error {
	if m.GetNumber() < 0 {
		return errRefused
	}
	return s.StreamService_UploadClient.Send(m)
}
