package interceptors_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/internal/logtest"
)

// The logger of a gate has one line a second for streams that were ended because their clients
// take nothing, with the number of them.
func TestLogOfSendStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept logtest.Book
		g := newGate(t, admit.WithLimit(fixed(10)), admit.WithName("streams"), admit.WithLogger(kept.Logger()))
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error { return sendAll(stream, 1000) }),
			grpctest.ServerOptions(server(t, interceptors.ServerConfig{Gate: newGate(t), Streams: g})...))
		peer := newRawPeer(t, p, true)
		peer.open(1, downMethod)
		peer.open(3, downMethod)
		time.Sleep(2 * (stallBound + stallSlack))
		synctest.Wait()
		if got := g.Stats().SendStalls; got != 2 {
			t.Fatalf("SendStalls: got %d, want 2", got)
		}
		got := strings.Split(kept.Take(), "\n")
		if len(got) == 0 || len(got) > 2 {
			t.Fatalf("two streams that stall: got %d lines, want one or two: %q", len(got), got)
		}
		const want = `level=WARN msg="weir: a stream was ended because its client takes no messages" gate=streams method=` + downMethod + ` bound=2m0s ended=1`
		if !strings.HasSuffix(got[0], want) {
			t.Errorf("line: got %q, want it to end with %q", got[0], want)
		}
	})
}
