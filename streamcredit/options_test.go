package streamcredit_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// What is wrong with options is said by the one that was given them, with what it got and wants.
func TestWrongOptions(t *testing.T) {
	for name, c := range map[string]struct {
		opts []streamcredit.DuplexOption
		says string
	}{
		"no direction":            {opened(streamcredit.WithSendOnly(), streamcredit.WithReceiveOnly()), "got WithSendOnly and WithReceiveOnly"},
		"handshake timeout":       {opened(streamcredit.WithHandshakeTimeout(-1)), "got a handshake timeout of -1ns"},
		"a nil option":            {opened(nil, streamcredit.WithWindow(8), nil), "got 2 nil options"},
		"a zero budget":           {opened(streamcredit.WithBudget(&streamcredit.Budget{})), "got a zero Budget"},
		"heartbeat":               {opened(streamcredit.WithHeartbeat(time.Microsecond)), "got a heartbeat of 1µs"},
		"first request timeout":   {opened(streamcredit.WithFirstRequestTimeout(-time.Second)), "got a WithFirstRequestTimeout of -1s"},
		"send stall timeout":      {opened(streamcredit.WithSendStallTimeout(-time.Second)), "a WithSendStallTimeout of -1s"},
		"peer credit":             {opened(streamcredit.WithMaxPeerDemand(-5)), "got a largest peer credit or demand of -5"},
		"byte window":             {opened(streamcredit.WithByteWindow(-7)), "got a WithByteWindow of -7"},
		"message bytes":           {opened(streamcredit.WithMaxMessageBytes(-8)), "a WithMaxMessageBytes of -8"},
		"WithPlainClients":        {opened(streamcredit.WithPlainClients()), "got WithPlainClients on a client"},
		"two windows":             {opened(streamcredit.WithWindow(8), streamcredit.WithManualDemand()), "got 2 options that set the window"},
		"window of none":          {opened(streamcredit.WithWindow(0)), "got a window of 0"},
		"window of far too many":  {opened(streamcredit.WithWindow(math.MaxInt)), "got a window of " + strconv.Itoa(math.MaxInt)},
		"low water above":         {opened(streamcredit.WithWindow(8), streamcredit.WithLowWater(8)), "got a low-water mark"},
		"low water of no window":  {opened(streamcredit.WithLowWater(1)), "got a low-water mark"},
		"automatic window":        {opened(streamcredit.WithAutoWindow(streamcredit.AutoWindow{Min: 10, Max: 5})), "got an automatic window {Min:10 Max:5"},
		"automatic window, bytes": {opened(streamcredit.WithAutoWindow(streamcredit.AutoWindow{Bytes: -1})), "Bytes:-1}"},
	} {
		if name == "window of far too many" && strconv.IntSize == 32 {
			continue // no int of 32 bits is
		}
		synctest.Test(t, func(t *testing.T) {
			client := handlers{}.start(t)
			_, err := streamcredit.Dial(t.Context(), client.Convert, c.opts...)
			if !errors.Is(err, streamcredit.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: got %v, want ErrInvalid that says %q", name, err, c.says)
			}
		})
	}
}

// All that is wrong is said at once.
func TestAllWrongOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := streamcredit.Dial(t.Context(), handlers{}.start(t).Convert,
			streamcredit.WithWindow(-1), streamcredit.WithHeartbeat(-1), streamcredit.WithMaxPeerCredit(-1))
		for _, want := range []string{"window of -1", "heartbeat of -1ns", "peer credit or demand of -1"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to say %q", err, want)
			}
		}
	})
}

// Parts that are missing are errors, not panics in a goroutine.
func TestMissingParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, framesBoth, nil, opened(streamcredit.WithManualDemand()))
		in, out := e.server.in.(inOf[[]byte]).Receiver, e.server.out.(outOf[[]byte]).Sender
		same := func(_ context.Context, e []byte) ([]byte, error) { return e, nil }
		var topic streamcredit.Topic[[]byte]
		for name, f := range map[string]func() error{
			"NewOutbox(nil)": func() error {
				_, err := streamcredit.NewOutbox[[]byte](e.ctx, nil, streamcredit.OutboxConfig{})
				return err
			},
			"NewOutbox(zero)": func() error {
				_, err := streamcredit.NewOutbox(e.ctx, &streamcredit.Sender[[]byte]{}, streamcredit.OutboxConfig{})
				return err
			},
			"Topic.Serve(nil)": func() error { return topic.Serve(e.ctx, nil, streamcredit.OutboxConfig{}) },
			"Pipe(nil, out)":   func() error { return streamcredit.Pipe(e.ctx, nil, out, same) },
			"Pipe(in, nil)":    func() error { return streamcredit.Pipe(e.ctx, in, nil, same) },
			"Pipe(in, zero)":   func() error { return streamcredit.Pipe(e.ctx, in, &streamcredit.Sender[[]byte]{}, same) },
			"ServeSend(nil)":   func() error { _, _, err := streamcredit.ServeSend(subscribeServer(nil)); return err },
			"ServeFrames(nil)": func() error {
				_, _, err := streamcredit.ServeFrames(nil)
				return err
			},
			"DialReceive(nil)": func() error {
				var open func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error)
				_, err := streamcredit.DialReceive(e.ctx, open)
				return err
			},
			"Pipe, nil": func() error { return streamcredit.Pipe[[]byte, []byte](e.ctx, in, out, nil) },
		} {
			if err := f(); !errors.Is(err, streamcredit.ErrInvalid) {
				t.Errorf("%s: got %v, want an error that wraps ErrInvalid", name, err)
			}
		}
	})
}

// A server that is wrong with its options is not the client's fault, and none of its business.
func TestAServersWrongOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{convert: func(s convertServer) error {
			_, _, err := streamcredit.Serve(s, streamcredit.WithWindow(-42))
			return err
		}}.start(t)
		both, err := streamcredit.Dial(t.Context(), client.Convert)
		if err == nil {
			defer both.Close()
			_, err = both.In.Recv(t.Context())
		}
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "42") {
			t.Errorf("the client: got %v, want INTERNAL that does not say what", err)
		}
	})
}

// Through a pipe in the middle the source learns with which status the sink has ended.
func TestTheSourceLearnsWhyTheSinkEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := handlers{upload: func(s uploadServer) error {
			in, _, err := streamcredit.ServeReceive(s)
			if err != nil {
				return err
			}
			if _, err = in.Recv(s.Context()); err != nil {
				return err
			}
			return status.Error(codes.FailedPrecondition, "the disk is read-only")
		}}.start(t)
		stage := handlers{upload: func(s uploadServer) error {
			in, _, err := streamcredit.ServeReceive(s, streamcredit.WithManualDemand())
			if err != nil {
				return err
			}
			out, err := streamcredit.DialSend(s.Context(), sink.Upload)
			if err != nil {
				return err
			}
			defer out.Close()
			return streamcredit.Pipe(s.Context(), in, out, func(_ context.Context, e *demopb.UploadRequest) (*demopb.UploadRequest, error) { return e, nil })
		}}.start(t)
		out, err := streamcredit.DialSend(t.Context(), stage.Upload)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			err = out.Send(t.Context(), &demopb.UploadRequest{})
		}
		if err := out.Finish(within(t, time.Minute)); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("Finish of the source: got %v, want the sink's FAILED_PRECONDITION", err)
		}
	})
}
