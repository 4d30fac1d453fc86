//go:build unix

package broker_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// serveAddr tells TestServeClient to be the client of the server at that address.
const serveAddr = "WEIR_SERVE_ADDR"

// The client asks for messages that are more than all buffers on the way take, consumes a
// few, and reads no others.
const clientWants, clientConsumes, clientBody = 40, 2, 256 << 10

// TestServeClient is the process of a client, which another test starts.
func TestServeClient(t *testing.T) {
	addr := os.Getenv(serveAddr)
	if addr == "" {
		t.Skip("TestServeLosesAProcess starts it")
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	in, err := streamcredit.DialReceive(t.Context(), demopb.NewStreamServiceClient(conn).Subscribe,
		streamcredit.WithManualDemand(), streamcredit.WithExplicitConsume())
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Request(clientWants - 1); err != nil {
		t.Fatal(err)
	}
	for range clientConsumes {
		if _, err := in.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Consume(clientConsumes); err != nil {
		t.Fatal(err)
	}
	if err := in.Request(1); err != nil { // which also reports what was consumed
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("\nholding\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
	os.Exit(1)
}

// Messages of a client whose process is killed or stopped are given back, except for the
// consumed ones. Only the keepalive of the server notices a process that is stopped.
func TestServeLosesAProcess(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			const n = clientWants + 10
			q := newQueue(n)
			result := make(chan error, 1)
			h := streams{subscribe: func(stream subscribeServer) error {
				out, _, err := streamcredit.ServeSend(stream)
				if err == nil {
					err = broker.Serve(stream.Context(), out, q.source(t, broker.SourceConfig{}), large, broker.ServeConfig{Logger: quiet})
				}
				result <- err
				return err
			}}
			p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, h) }, grpctest.OverSocket(),
				grpctest.ServerOptions(grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: time.Second})))
			client := startClient(t, p.Addr)
			for late := time.After(long); len(q.settlements()) < clientConsumes; {
				select {
				case <-time.After(time.Millisecond):
				case <-late:
					t.Fatalf("settlements: got %v, want the %d of the client", q.settlements(), clientConsumes)
				}
			}
			if err := client.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-result:
				if err == nil {
					t.Error("Serve: got nil, want why the stream ended")
				}
			case <-time.After(long):
				t.Fatalf("Serve has not returned after %v", long)
			}
			wantState(t, q, n-clientConsumes, 0)
		})
	}
}

// long is longer than anything takes on a busy machine.
const long = 30 * time.Second

// large makes an element that fills buffers.
func large(context.Context, *broker.Message) (*demopb.SubscribeResponse, error) {
	return &demopb.SubscribeResponse{Payload: make([]byte, clientBody)}, nil
}

// startClient starts a client, and returns once it has consumed its messages.
func startClient(t *testing.T, addr string) *os.Process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestServeClient$", "-test.count=1")
	cmd.Env = append(os.Environ(), serveAddr+"="+addr)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == "holding" {
			return cmd.Process
		}
	}
	t.Fatal("the client has ended, want it to go on")
	return nil
}
