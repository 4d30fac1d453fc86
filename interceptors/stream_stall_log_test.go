package interceptors_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// A journal keeps the lines of a logger.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Split(strings.TrimSpace(j.text.String()), "\n")
}

// The logger of a gate has one line a second for streams that were ended because their clients
// take nothing, with the number of them.
func TestLogOfSendStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept journal
		g := newGate(t, admit.WithLimit(fixed(10)), admit.WithName("streams"), admit.WithLogger(slog.New(slog.NewTextHandler(&kept, nil))))
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error { return sendAll(stream, 1000) }),
			grpctest.ServerOptions(server(t, interceptors.ServerConfig{Gate: newGate(t), Streams: g})...))
		peer := newRawPeer(t, p, true)
		peer.open(1, downMethod)
		peer.open(3, downMethod)
		time.Sleep(2 * (stallBound + stallSlack))
		synctest.Wait()
		if got := interceptors.SendStalls(g); got != 2 {
			t.Fatalf("SendStalls: got %d, want 2", got)
		}
		got := kept.lines()
		if len(got) == 0 || len(got) > 2 {
			t.Fatalf("two streams that stall: got %d lines, want one or two: %q", len(got), got)
		}
		const want = `level=WARN msg="weir: a stream was ended because its client takes no messages" gate=streams method=` + downMethod + ` bound=2m0s ended=1`
		if !strings.HasSuffix(got[0], want) {
			t.Errorf("line: got %q, want it to end with %q", got[0], want)
		}
	})
}
