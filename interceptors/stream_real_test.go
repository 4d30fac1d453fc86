//go:build unix

package interceptors_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// The process of a client is stopped. All its handlers and permits come free.
func TestAStoppedProcess(t *testing.T) {
	g := strict(t, stoppedStreams)
	ended := make(chan error, stoppedStreams)
	p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
		err := sendAll(stream, 1000)
		ended <- err
		return err
	}), grpctest.OverSocket(), grpctest.ServerOptions(grpc.StreamInterceptor(
		interceptors.StreamServer(g, interceptors.WithStreams(interceptors.StreamRule{SendStall: 3 * time.Second}, nil)))))
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), stoppedClient+"="+p.Addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	lines := bufio.NewReader(out)
	for range stoppedStreams {
		if first, err := lines.ReadString('\n'); err != nil || first != "<nil>\n" {
			t.Fatalf("the client: got %q, %v; want that it receives", first, err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range stoppedStreams {
		wantStalled(t, <-ended)
	}
	for g.Stats().InFlight > 0 { // the handlers return
		time.Sleep(time.Millisecond) // a real process has no virtual time
	}
	if got := g.Stats().SendStalls; got != stoppedStreams {
		t.Errorf("stalls: got %d, want %d", got, stoppedStreams)
	}
}

// Under ServeHTTP nothing can end a stuck Send but the client's end. There the bound does nothing:
// it loses no stream and leaves nothing behind.
func TestServeHTTPHasNoBound(t *testing.T) {
	g := strict(t, 1)
	sent, ended := make(chan struct{}), make(chan error, 1)
	s := grpc.NewServer(grpc.StreamInterceptor(interceptors.StreamServer(g, interceptors.WithStreams(interceptors.StreamRule{SendStall: time.Millisecond}, nil))))
	streams(func(stream grpc.ServerStream) error {
		err := stream.SendMsg(wrapperspb.Bytes(make([]byte, 1<<10)))
		close(sent)
		if err == nil {
			err = sendAll(stream, 1<<20)
		}
		ended <- err
		return err
	})(s)
	web := httptest.NewUnstartedServer(http.HandlerFunc(s.ServeHTTP))
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	roots := web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	conn, err := grpc.NewClient(strings.TrimPrefix(web.URL, "https://"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := startStream(ctx, t, conn, downMethod)
	<-sent
	for range 3 { // the handler sends on, and each time is stuck for longer than the bound
		time.Sleep(100 * time.Millisecond) // a real network has none either
		if err := receive(stream); err != nil {
			t.Fatalf("after a pause: got %v, want that the stream goes on", err)
		}
	}
	cancel()
	if err := <-ended; err == nil || errors.Is(err, interceptors.ErrSendStalled) {
		t.Errorf("Send: got %v, want an error of the client's end", err)
	}
	if got := g.Stats().SendStalls; got != 0 {
		t.Errorf("stalls: got %d, want 0", got)
	}
}
