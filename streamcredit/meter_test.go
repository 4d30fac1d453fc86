package streamcredit_test

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// 1. What an outbox drops after its stream has ended is not in the meter.
func TestMeterCountsWhatAnOutboxDropsWhenItsClientHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := streamcredit.NewMeter("m")
		var dropped atomic.Uint64
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(m))
			if err != nil {
				return err
			}
			box, err := streamcredit.NewOutbox(stream.Context(), out, streamcredit.OutboxConfig{Capacity: 5})
			if err != nil {
				return err
			}
			for n := range 5 {
				if err := box.Put(stream.Context(), event(n)); err != nil {
					return err
				}
			}
			<-stream.Context().Done()
			time.Sleep(time.Millisecond)
			err = box.Close(context.Background())
			dropped.Store(box.Stats().Dropped)
			return err
		}}.start(t)
		ctx, leave := context.WithCancel(t.Context())
		if _, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithManualDemand()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		leave()
		time.Sleep(time.Second)
		if got := m.Stats().Dropped; got != dropped.Load() || got != 5 {
			t.Errorf("MeterStats.Dropped = %d, OutboxStats.Dropped = %d, want both 5", got, dropped.Load())
		}
	})
}

// picky is a server's stream, as a validating interceptor makes it, that refuses
// events of number 2.
type picky struct {
	grpc.ServerStream
	refused func()
}

func (s picky) SendMsg(m any) error {
	if e, ok := m.(*demopb.SubscribeResponse); ok && e.GetNumber() == 2 {
		s.refused()
		return errors.New("not valid")
	}
	return s.ServerStream.SendMsg(m)
}

// 2. A counter goes down: take counts an element, restore uncounts it.
func TestMeterCountersDoNotFallWhenAnElementIsRefused(t *testing.T) {
	m := streamcredit.NewMeter("m")
	var during streamcredit.MeterStats
	interceptor := func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, picky{s, func() { during = m.Stats() }}) // a scrape at this moment
	}
	client := handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(m))
		if err != nil {
			return err
		}
		_ = out.Send(stream.Context(), event(1))
		if err := out.Send(stream.Context(), event(2)); err == nil {
			t.Error("Send = nil, want an error")
		}
		if after := m.Stats(); after.Sent < during.Sent || after.SentBytes < during.SentBytes {
			t.Errorf("Sent, SentBytes = %d, %d after %d, %d, want them not to fall", after.Sent, after.SentBytes, during.Sent, during.SentBytes)
		}
		return out.Finish(stream.Context())
	}}.start(t, grpctest.ServerOptions(grpc.StreamInterceptor(interceptor)))
	in, err := streamcredit.DialReceive(t.Context(), client.Subscribe)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range in.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = in.Close()
}

// 3. Open is counted where it is sent, not where it is received.
func TestMeterCountsAsManyControlsReceivedAsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, cl := streamcredit.NewMeter("server"), streamcredit.NewMeter("client")
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(server))
			if err != nil {
				return err
			}
			<-out.Done()
			return nil
		}}.start(t)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		if _, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithMeter(cl)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s, c := server.Stats(), cl.Stats()
		if s.ControlReceived != c.ControlSent || c.ControlReceived != s.ControlSent {
			t.Errorf("client sent %d, server received %d; server sent %d, client received %d; want equal",
				c.ControlSent, s.ControlReceived, s.ControlSent, c.ControlReceived)
		}
	})
}

// 4. Two peers that ask for MaxInt64-1 each overflow the sum.
func TestMeterCreditDoesNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := streamcredit.NewMeter("m")
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(m))
			if err != nil {
				return err
			}
			<-out.Done()
			return nil
		}}.start(t)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		cm := streamcredit.NewMeter("c")
		for range 2 {
			in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithManualDemand(), streamcredit.WithMeter(cm))
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Request(math.MaxInt64 - 1); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := m.Stats().Credit; got < 0 {
			t.Errorf("Credit = %d, want no less than 0", got)
		}
		if got := cm.Stats().Demand; got < 0 {
			t.Errorf("Demand = %d, want no less than 0", got)
		}
	})
}

// 5. What arrives after the context has ended is given to the application, not counted.
func TestMeterCountsWhatRecvReturnsAfterTheContextHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := streamcredit.NewMeter("m")
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			for n := range 5000 {
				if err := out.Send(stream.Context(), event(n)); err != nil {
					return err
				}
			}
			return out.Finish(stream.Context())
		}}.start(t)
		ctx, leave := context.WithCancel(t.Context())
		in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithManualDemand(), streamcredit.WithMeter(m))
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := m.Stats().Received
		leave()
		synctest.Wait()
		var got uint64
		for {
			_, err := in.Recv(t.Context())
			if err != nil {
				t.Log(err, err == io.EOF)
				break
			}
			got++
		}
		if s := m.Stats(); s.Received < got {
			t.Errorf("Received = %d (before the end %d), Recv returned %d, want as many", s.Received, before, got)
		} else {
			t.Log(s.Received, got, in.Stats().Received)
		}
	})
}

// 6. After Cancel, elements that still arrive count as Buffered and confuse Consume.
func TestWhatArrivesAfterCancelIsNotBuffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			for n := range 5 {
				time.Sleep(time.Second)
				if err := out.Send(stream.Context(), event(n)); err != nil {
					return nil
				}
			}
			return nil
		}}.start(t, grpctest.DialOptions())
		client = slow{client}
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithWindow(5), streamcredit.WithExplicitConsume())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		in.Cancel("enough")
		time.Sleep(10 * time.Second)
		if got := in.Stats().Buffered; got != 0 {
			t.Errorf("Buffered = %d, want 0", got)
		}
		if err := in.Consume(1); err != nil {
			t.Errorf("Consume = %v, want no error for the element that Recv returned", err)
		}
		_ = in.Close()
	})
}

// slow is a client whose first message after Open travels for 2 s.
type slow struct{ demopb.StreamServiceClient }

type slowStream struct {
	grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse]
}

func (s slowStream) Send(m *demopb.SubscribeRequest) error {
	if m.GetCredit().GetCancel() != nil {
		time.Sleep(2 * time.Second)
	}
	return s.BidiStreamingClient.Send(m)
}

func (s slow) Subscribe(ctx context.Context, o ...grpc.CallOption) (grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error) {
	c, err := s.StreamServiceClient.Subscribe(ctx, o...)
	return slowStream{c}, err
}

// 7. The zero Meter panics.
func TestZeroMeter(t *testing.T) {
	client := handlers{subscribe: func(stream subscribeServer) error { return nil }}.start(t)
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("panic: %v", p)
		}
	}()
	in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithMeter(&streamcredit.Meter{}))
	if err == nil {
		_ = in.Close()
	}
}

// 8. Consume of two goroutines at once: both are let through for one element.
func TestMeterConsumeAtOnce(t *testing.T) {
	m := streamcredit.NewMeter("m")
	client := handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		if err != nil {
			return err
		}
		for n := range 20000 {
			if err := out.Send(stream.Context(), event(n)); err != nil {
				return err
			}
		}
		return out.Finish(stream.Context())
	}}.start(t)
	in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithExplicitConsume(), streamcredit.WithMeter(m))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for range 20000 {
		if _, err := in.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin, oks := make(chan struct{}), make(chan error, 4)
		for range 4 {
			go func() {
				<-begin
				oks <- in.Consume(1)
			}()
		}
		close(begin)
		n := 0
		for range 4 {
			if <-oks == nil {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("Consume of one element by four at once: %d were let through, want 1; lag is %d", n, m.Stats().Lag)
		}
	}
}

// Ten thousand subscribers that wait for an event overflow a sum of durations within ten days.
func TestMeterSumsOfTimesDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := streamcredit.NewMeter("server"), streamcredit.NewMeter("client")
		peer := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(server))
			if err != nil {
				return err
			}
			if err := out.Send(stream.Context(), event(1)); err != nil {
				return err
			}
			return out.Send(stream.Context(), event(2)) // it starves
		}}.start(t)
		ctx, leave := context.WithCancel(t.Context())
		const streams, years = 40, 8
		for range streams {
			in, err := streamcredit.DialReceive(ctx, peer.Subscribe, streamcredit.WithMeter(client), streamcredit.WithManualDemand())
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Request(1); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Recv(ctx); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = in.Recv(ctx) }()
		}
		const year = 365 * 24 * time.Hour
		time.Sleep(years * year)
		got, want := [2]float64{server.Stats().StarvedSeconds, client.Stats().WaitedSeconds}, streams*years*year.Seconds()
		for i, of := range []string{"server's StarvedSeconds", "client's WaitedSeconds"} {
			if math.Abs(got[i]-want) > want/1e6 {
				t.Errorf("%s after %d years of %d streams: got %g, want %g", of, years, streams, got[i], want)
			}
		}
		leave()
	})
}
