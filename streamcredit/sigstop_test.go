//go:build unix

package streamcredit_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// The process of a client is stopped while a server's Send is in the transport. The handler
// goes on, with PEER_STALLED.
func TestAStoppedProcessFreesSend(t *testing.T) {
	for _, kind := range []string{"embedded", "frames"} {
		t.Run(kind, func(t *testing.T) {
			ended := make(chan error, 1)
			addr := serveStalled(t, ended)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "WEIR_STOPPED_CLIENT="+addr, "WEIR_STOPPED_KIND="+kind)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
			if first, err := bufio.NewReader(out).ReadString('\n'); err != nil || first != "<nil>\n" {
				t.Fatalf("the client: got %q, %v; want that it receives", first, err)
			}
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			wantStalled(t, "Send", <-ended)
		})
	}
}

// serveStalled serves handlers that send until an error, which goes to ended.
func serveStalled(t *testing.T, ended chan<- error) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	beat := streamcredit.WithHeartbeat(500 * time.Millisecond)
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(s, handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream, beat)
		if err != nil {
			ended <- err
			return err
		}
		for err == nil {
			err = out.Send(context.Background(), &demopb.SubscribeResponse{Payload: make([]byte, 1<<10)})
		}
		ended <- err
		return out.CloseWithError(err)
	}})
	creditpb.RegisterCreditStreamServer(s, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
		both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly(), beat)
		if err != nil {
			ended <- err
			return err
		}
		for err == nil {
			err = both.Out.Send(context.Background(), make([]byte, 1<<10))
		}
		ended <- err
		return both.Out.CloseWithError(err)
	}})
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}
