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

// Each wrong option is named with what it got and what is wanted.
func TestWrongOptions(t *testing.T) {
	auto := func(a streamcredit.AutoWindow) []streamcredit.DuplexOption {
		return opened(streamcredit.WithAutoWindow(a))
	}
	for name, c := range map[string]struct {
		opts []streamcredit.DuplexOption
		want string
	}{
		"no direction": {
			opened(streamcredit.WithSendOnly(), streamcredit.WithReceiveOnly()),
			"WithSendOnly and WithReceiveOnly: got both, want one of them",
		},
		"handshake timeout": {opened(streamcredit.WithHandshakeTimeout(-1)), "WithHandshakeTimeout: got -1ns, want more than 0"},
		"nil options": {
			opened(nil, streamcredit.WithWindow(8), nil),
			"option 0: got nil, want an option\n" + "option 2: got nil, want an option",
		},
		"a zero budget": {opened(streamcredit.WithBudget(&streamcredit.Budget{})), "WithBudget: got a zero Budget, want one from NewBudget"},
		"heartbeat":     {opened(streamcredit.WithHeartbeat(time.Microsecond)), "WithHeartbeat: got 1µs, want at least 100ms, or 0 for none"},
		"first request timeout": {
			opened(streamcredit.WithFirstRequestTimeout(-time.Second)),
			"WithFirstRequestTimeout: got -1s, want more than 0, or 0 for no bound",
		},
		"send stall timeout": {
			opened(streamcredit.WithSendStallTimeout(-time.Second)),
			"WithSendStallTimeout: got -1s, want more than 0, or 0 for no bound",
		},
		"peer credit":   {opened(streamcredit.WithMaxPeerCredit(-4)), "WithMaxPeerCredit: got -4, want more than 0, or 0 for no bound"},
		"peer demand":   {opened(streamcredit.WithMaxPeerDemand(-5)), "WithMaxPeerDemand: got -5, want more than 0, or 0 for no bound"},
		"byte window":   {opened(streamcredit.WithByteWindow(-7)), "WithByteWindow: got -7, want more than 0, or 0 for no bound"},
		"message bytes": {opened(streamcredit.WithMaxMessageBytes(-8)), "WithMaxMessageBytes: got -8, want more than 0, or 0 for no bound"},
		"plain clients": {opened(streamcredit.WithPlainClients()), "WithPlainClients: got it on a client, want it on the server"},
		"two windows": {
			opened(streamcredit.WithWindow(8), streamcredit.WithManualDemand()),
			"window: got 2 options that set it, want one",
		},
		"window of none": {opened(streamcredit.WithWindow(0)), "WithWindow: got 0, want 1 to 2147483647"},
		"window of far too many": {
			opened(streamcredit.WithWindow(math.MaxInt)),
			"WithWindow: got " + strconv.Itoa(math.MaxInt) + ", want 1 to 2147483647",
		},
		"low water above": {
			opened(streamcredit.WithWindow(8), streamcredit.WithLowWater(8)),
			"WithLowWater: got 8, want 0 to 7, which is below the window",
		},
		"low water of no window": {
			opened(streamcredit.WithLowWater(1)),
			"WithLowWater: got 1 without a fixed window, want WithWindow beside it",
		},
		"automatic window, Max":   {auto(streamcredit.AutoWindow{Min: 10, Max: 5}), "WithAutoWindow: Max: got 5, want Min (10) to 2147483647"},
		"automatic window, Min":   {auto(streamcredit.AutoWindow{Min: -1}), "WithAutoWindow: Min: got -1, want 1 to 2147483647"},
		"automatic window, bytes": {auto(streamcredit.AutoWindow{Bytes: -1}), "WithAutoWindow: Bytes: got -1, want more than 0"},
		"all of them": {
			opened(streamcredit.WithWindow(-1), streamcredit.WithHeartbeat(-1), streamcredit.WithMaxPeerCredit(-1)),
			"WithHeartbeat: got -1ns, want at least 100ms, or 0 for none\n" +
				"WithMaxPeerCredit: got -1, want more than 0, or 0 for no bound\n" +
				"WithWindow: got -1, want 1 to 2147483647",
		},
	} {
		if name == "window of far too many" && strconv.IntSize == 32 {
			continue // no int of 32 bits is
		}
		synctest.Test(t, func(t *testing.T) {
			client := handlers{}.start(t)
			_, err := streamcredit.Dial(t.Context(), client.Convert, c.opts...)
			wantInvalid(t, name, err, c.want)
		})
	}
}

// Options of a client are wrong on a server.
func TestWrongOptionsOfAServer(t *testing.T) {
	_, _, err := streamcredit.ServeFrames(nil, streamcredit.WithSetup([]byte{1}), streamcredit.WithCallOptions(grpc.WaitForReady(true)))
	wantInvalid(t, "ServeFrames", err, "WithSetup: got one on a server, want it on the client\n"+
		"WithCallOptions: got 1 on a server, want them on the client")
}

// wantInvalid checks that err wraps ErrInvalid and that its text is that of ErrInvalid with the mistakes.
func wantInvalid(t *testing.T, name string, err error, mistakes string) {
	t.Helper()
	if want := streamcredit.ErrInvalid.Error() + ": " + mistakes; !errors.Is(err, streamcredit.ErrInvalid) || err.Error() != want {
		t.Errorf("%s: got %v, want ErrInvalid with the text %q", name, err, want)
	}
}

// Parts that are missing are errors, not panics in a goroutine.
func TestMissingParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, framesBoth, nil, opened(streamcredit.WithManualDemand()))
		in, out := e.server.in.(inOf[[]byte]).Receiver, e.server.out.(outOf[[]byte]).Sender
		same := func(_ context.Context, e []byte) ([]byte, error) { return e, nil }
		var topic streamcredit.Topic[[]byte]
		const (
			sender   = "out: got none, want a Sender of ServeSend, DialSend or their variants"
			receiver = "in: got none, want a Receiver of DialReceive, ServeReceive or their variants"
		)
		for name, c := range map[string]struct {
			f    func() error
			want string
		}{
			"NewOutbox(nil)": {func() error {
				_, err := streamcredit.NewOutbox[[]byte](e.ctx, nil, streamcredit.OutboxConfig{})
				return err
			}, sender},
			"NewOutbox(zero)": {func() error {
				_, err := streamcredit.NewOutbox(e.ctx, &streamcredit.Sender[[]byte]{}, streamcredit.OutboxConfig{})
				return err
			}, sender},
			"Topic.Serve(nil)": {func() error { return topic.Serve(e.ctx, nil, streamcredit.OutboxConfig{}) }, sender},
			"Pipe(nil, out)":   {func() error { return streamcredit.Pipe(e.ctx, nil, out, same) }, receiver},
			"Pipe(in, nil)":    {func() error { return streamcredit.Pipe(e.ctx, in, nil, same) }, sender},
			"Pipe(in, zero)":   {func() error { return streamcredit.Pipe(e.ctx, in, &streamcredit.Sender[[]byte]{}, same) }, sender},
			"Pipe of nothing": {
				func() error { return streamcredit.Pipe[[]byte, []byte](e.ctx, nil, nil, nil) },
				receiver + "\n" + sender + "\nf: got nil, want a function",
			},
			"Pipe, nil": {func() error { return streamcredit.Pipe[[]byte, []byte](e.ctx, in, out, nil) }, "f: got nil, want a function"},
			"ServeSend(nil)": {
				func() error { _, _, err := streamcredit.ServeSend(subscribeServer(nil)); return err },
				"stream: got none, want that of a handler",
			},
			"ServeFrames(nil)": {func() error {
				_, _, err := streamcredit.ServeFrames(nil)
				return err
			}, "stream: got none, want that of a handler"},
			"DialReceive(nil)": {func() error {
				var open func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error)
				_, err := streamcredit.DialReceive(e.ctx, open)
				return err
			}, "open: got no method, want that of a generated client"},
		} {
			wantInvalid(t, name, c.f(), c.want)
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
