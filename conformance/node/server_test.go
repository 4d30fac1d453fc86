package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// serveNode runs server.js and returns a client of it.
func serveNode(t *testing.T) demopb.StreamServiceClient {
	t.Helper()
	command := exec.Command(installed(t), "server.js")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // server.js ends with it
		if err := command.Wait(); err != nil {
			t.Errorf("node server.js: got %v, want no error", err)
		}
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("127.0.0.1:"+strings.TrimSpace(port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return demopb.NewStreamServiceClient(conn)
}

// soon is a context for calls that should not have to wait.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // Node shares a busy machine
	t.Cleanup(cancel)
	return ctx
}

// Weir's receivers, senders and both get from a server in another language what they ask for.
func TestWeirSpeaksWithNode(t *testing.T) {
	client := serveNode(t)
	t.Run("receive", func(t *testing.T) {
		const count = 5_000
		in, err := streamcredit.DialReceive(soon(t), client.Subscribe, streamcredit.WithSetup(&demopb.SubscribeRequest{Count: count}))
		if err != nil {
			t.Fatal(err)
		}
		next := int64(1)
		for e, err := range in.All(soon(t)) {
			if err != nil || e.GetNumber() != next {
				t.Fatalf("got element %d, %v; want %d", e.GetNumber(), err, next)
			}
			next++
		}
		if err := in.Close(); err != nil || next != count+1 {
			t.Errorf("got %d elements and %v, want %d", next-1, err, count)
		}
	})
	t.Run("send", func(t *testing.T) {
		const count = 500
		out, err := streamcredit.DialSend(soon(t), client.Upload, streamcredit.WithHeartbeat(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for n := range int64(count) {
			if err := out.Send(soon(t), &demopb.UploadRequest{Number: n + 1}); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Finish(soon(t)); err != nil || out.Consumed() != count {
			t.Errorf("Finish: got %v with %d consumed, want %d", err, out.Consumed(), count)
		}
	})
	t.Run("send until canceled", func(t *testing.T) {
		out, err := streamcredit.DialSend(soon(t), client.Upload)
		for n := int64(1); err == nil; n++ {
			err = out.Send(soon(t), &demopb.UploadRequest{Number: n})
		}
		if !errors.Is(err, streamcredit.ErrCanceled) || !strings.Contains(err.Error(), "enough") {
			t.Errorf("Send: got %v, want %v with the reason", err, streamcredit.ErrCanceled)
		}
		if err := out.Finish(soon(t)); !errors.Is(err, streamcredit.ErrCanceled) {
			t.Errorf("Finish: got %v, want %v", err, streamcredit.ErrCanceled)
		}
	})
	t.Run("send an error", func(t *testing.T) {
		out, err := streamcredit.DialSend(soon(t), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(out.Send(soon(t), &demopb.UploadRequest{Number: 1}), out.CloseWithError(status.Error(codes.Aborted, "no more"))); err != nil {
			t.Fatal(err)
		}
		if err := out.Finish(soon(t)); status.Code(err) != codes.Aborted {
			t.Errorf("Finish: got %v, want the status %v, with which the server ends", err, codes.Aborted)
		}
	})
}

// Credit that is given back is exactly the credit that no element has used, as often as it happens.
func TestDrainsWithNode(t *testing.T) {
	client := serveNode(t)
	both, err := streamcredit.Dial(soon(t), client.Convert, streamcredit.WithManualDemand())
	if err != nil {
		t.Fatal(err)
	}
	sent := int64(0)
	for round := range int64(50) {
		asked, elements := 5+round%3, round%5
		if err := both.In.Request(asked); err != nil {
			t.Fatal(err)
		}
		for range elements {
			sent++
			if err := both.Out.Send(soon(t), &demopb.ConvertRequest{Number: sent}); err != nil {
				t.Fatal(err)
			}
			if e, err := both.In.Recv(soon(t)); err != nil || e.GetNumber() != sent {
				t.Fatalf("Recv: got %d, %v; want %d", e.GetNumber(), err, sent)
			}
		}
		if burned, err := both.In.Drain(soon(t)); err != nil || burned != asked-elements {
			t.Fatalf("Drain %d: got %d, %v; want %d", round, burned, err, asked-elements)
		}
	}
	if err := both.Out.Finish(soon(t)); err != nil {
		t.Errorf("Finish: got %v, want no error", err)
	}
	if _, err := both.In.Recv(soon(t)); !errors.Is(err, io.EOF) {
		t.Errorf("Recv at the end: got %v, want %v", err, io.EOF)
	}
	if err := both.Close(); err != nil {
		t.Errorf("Close: got %v, want no error", err)
	}
}

// A receiver may drain, cancel and close in any order. None of them waits for the others.
func TestEndsInAnyOrderWithNode(t *testing.T) {
	client := serveNode(t)
	for _, order := range [][]string{
		{"drain", "cancel", "close"},
		{"drain", "close", "cancel"},
		{"cancel", "drain", "close"},
		{"cancel", "close", "drain"},
		{"close", "drain", "cancel"},
		{"close", "cancel", "drain"},
		{"drain", "drain", "close"},
		{"cancel", "cancel", "close", "close"},
		{"close"},
		{"drain and leave", "close"},
	} {
		for _, taken := range []int{0, 2, 5} {
			t.Run(fmt.Sprintf("%d taken, %s", taken, strings.Join(order, ", ")), func(t *testing.T) {
				in, err := streamcredit.DialReceive(soon(t), client.Subscribe, streamcredit.WithManualDemand(),
					streamcredit.WithSetup(&demopb.SubscribeRequest{Count: 1_000}))
				if err != nil {
					t.Fatal(err)
				}
				if err := in.Request(5); err != nil {
					t.Fatal(err)
				}
				for n := range taken {
					if e, err := in.Recv(soon(t)); err != nil || e.GetNumber() != int64(n+1) {
						t.Fatalf("Recv: got %d, %v; want %d", e.GetNumber(), err, n+1)
					}
				}
				ended := false
				for _, step := range order {
					switch step {
					case "drain":
						if burned, err := in.Drain(soon(t)); !ended && (burned != 0 || err != nil) || ended && !errors.Is(err, streamcredit.ErrClosed) {
							t.Errorf("Drain: got %d, %v; want nothing back, or %v after the end", burned, err, streamcredit.ErrClosed)
						}
					case "drain and leave":
						ctx, cancel := context.WithCancel(t.Context())
						cancel()
						if _, err := in.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
							t.Errorf("Drain: got %v, want %v", err, context.Canceled)
						}
					case "cancel":
						in.Cancel("enough")
						ended = true
					case "close":
						if err := in.Close(); err != nil {
							t.Errorf("Close: got %v, want no error", err)
						}
						ended = true
					}
				}
			})
		}
	}
}
