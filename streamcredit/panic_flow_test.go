package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// minedStreams are the options of a connection with mines in what each end sends.
func minedStreams(client, server *mine) []grpctest.Option {
	never := &mine{}
	return wrapped(
		func(cs grpc.ClientStream) grpc.ClientStream { return minedClient{cs, client, never} },
		func(ss grpc.ServerStream) grpc.ServerStream { return minedServer{ss, server, never} },
	)
}

// eachAbruptKind runs a test for each way to leave and for streams of messages both ways. A
// stream of Frames writes in a goroutine of its own.
func eachAbruptKind(t *testing.T, kinds []kind, test func(t *testing.T, k kind, how func())) {
	t.Helper()
	for name, how := range abrupt {
		for _, k := range kinds {
			t.Run(fmt.Sprint(name, "/", k), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, k, how) }) })
		}
	}
}

// An element that panics in the goroutine of an outbox ends the stream and not the process. Put
// and Close say so.
func TestAnElementThatPanicsInAnOutbox(t *testing.T) {
	eachAbruptKind(t, []kind{subscribes, uploads, framesDown}, func(t *testing.T, k kind, how func()) {
		bomb := &mine{how: how}
		meter := streamcredit.NewMeter("mined")
		opts := opened(streamcredit.WithMeter(meter))
		e := connect(t, k, opts, opts, minedStreams(bomb, bomb)...)
		out, in := e.down()
		box, err := newBox(t.Context(), out, streamcredit.OutboxConfig{Capacity: 1})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		bomb.left.Store(1)
		for n := int64(1); err == nil && n < 100; n++ {
			err = box.put(within(t, time.Minute), n, false)
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Put: got %v, want the error of the stream", err)
		}
		if err := box.Close(within(t, time.Minute)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: got %v, want the error of the stream", err)
		}
		if _, err := in.recv(within(t, time.Minute)); k == uploads && (err == nil || errors.Is(err, io.EOF)) {
			t.Errorf("Recv: got %v, want the error of the stream", err) // a server's handler has to return
		}
		if s := box.Stats(); s.Queued != 0 || k != framesDown && s.Dropped+meter.Stats().Sent != s.Put {
			t.Errorf("Stats: got %+v and %d sent, want all put elements sent or dropped", s, meter.Stats().Sent)
		}
	})
}

// The end of a direction that panics, while an outbox closes, does not end the process.
func TestAnEndThatPanicsInAnOutbox(t *testing.T) {
	eachAbruptKind(t, []kind{subscribes, uploads, framesDown}, func(t *testing.T, k kind, how func()) {
		bomb := &mine{how: how}
		e := connect(t, k, nil, nil, minedStreams(bomb, bomb)...)
		out, _ := e.down()
		box, err := newBox(t.Context(), out, streamcredit.OutboxConfig{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		bomb.left.Store(1)
		if err := box.Close(within(t, time.Minute)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: got %v, want the error of the stream", err)
		}
	})
}

// A Request that panics in a pipe ends the pipe and not the process.
func TestARequestThatPanicsInAPipe(t *testing.T) {
	eachAbruptKind(t, []kind{framesDown}, func(t *testing.T, _ kind, how func()) {
		bomb := &mine{how: how}
		manual := opened(streamcredit.WithManualDemand())
		first := connect(t, subscribes, manual, nil, minedStreams(bomb, &mine{})...)
		next := connect(t, framesUp, nil, manual)
		from, to := first.client.in.(inOf[*demopb.SubscribeResponse]).Receiver, next.client.out.(outOf[[]byte]).Sender
		result := make(chan error, 1)
		go func() {
			result <- streamcredit.Pipe(t.Context(), from, to, func(_ context.Context, e *demopb.SubscribeResponse) ([]byte, error) {
				return toBytes(e.GetNumber()), nil
			})
		}()
		synctest.Wait()
		bomb.left.Store(1)
		if err := next.server.in.Request(3); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case err := <-result:
			if status.Code(err) != codes.Internal {
				t.Errorf("Pipe: got %v, want %v", err, codes.Internal)
			}
		default:
			t.Error("Pipe: waits, want it to return")
		}
		if _, err := next.server.in.recv(within(t, time.Minute)); status.Code(err) != codes.Internal {
			t.Errorf("Recv of the sink: got %v, want %v", err, codes.Internal)
		}
	})
}

// A report of consumed elements that panics in a timer ends the stream and not the process.
func TestAReportThatPanics(t *testing.T) {
	eachAbruptKind(t, []kind{subscribes}, func(t *testing.T, k kind, how func()) {
		bomb := &mine{how: how}
		opts := opened(streamcredit.WithExplicitConsume())
		e := connect(t, k, opts, opts, minedStreams(bomb, bomb)...)
		out, in := e.down()
		sendAll(t, out, 1, 40)
		take(t, in, 1, 40)
		synctest.Wait()
		if err := in.Consume(18); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		bomb.left.Store(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := bomb.left.Load(); left > 0 {
			t.Fatal("the receiver has reported nothing, want a report after a while")
		}
		var err error
		for err == nil {
			err = out.send(within(t, time.Minute), 41)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send: got %v, want the error of the stream", err)
		}
	})
}
