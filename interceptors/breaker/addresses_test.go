package breaker_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/internal/calltest"
)

// A circuit shows the addresses whose calls opened it, and when it will send a probe. Each of
// its changes is logged.
func TestAddressesAndLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		b, err := breaker.New(breaker.Config{Name: "to-stock", MinCalls: 10, OpenFor: time.Second},
			breaker.WithLogger(nil), breaker.WithLogger(slog.New(slog.NewTextHandler(&lines, nil))))
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Addresses(); len(got) != 0 {
			t.Errorf("addresses of no circuit: got %v, want none", got)
		}
		var code atomic.Uint32 // of the answers
		code.Store(uint32(codes.Unavailable))
		client := start(t, calltest.Does(func(context.Context) error { return status.Error(codes.Code(code.Load()), "told to") }), nil, breakerDial(b)...)
		call := func(n int) {
			for range n {
				_, _ = client.Work(t.Context(), &demopb.WorkRequest{})
			}
		}
		call(10)
		s := b.Stats()
		if len(s) != 1 || s[0].State != breaker.Open || s[0].ProbeIn < 500*time.Millisecond || s[0].ProbeIn > 1500*time.Millisecond {
			t.Fatalf("stats: got %+v, want one open circuit with a probe in about a second", s)
		}
		got := b.Addresses()
		if len(got) != 1 || got[0].Address == "" || got[0].Failed == 0 || got[0].Failed != got[0].Calls || got[0].Target != s[0].Target || got[0].Method != work {
			t.Errorf("addresses: got %+v, want one at which all calls failed", got)
		}
		time.Sleep(2 * time.Second)
		code.Store(uint32(codes.OK))
		call(5)
		if s = b.Stats(); s[0].State != breaker.Closed || s[0].ProbeIn != 0 {
			t.Errorf("stats after probes: got %+v, want it closed", s[0])
		}
		for _, want := range []string{
			`level=WARN msg="weir: a circuit is open" breaker=to-stock`, "method=" + work + " from=closed to=open",
			"from=open to=half-open", `level=INFO msg="weir: a circuit is closed again"`,
		} {
			if !strings.Contains(lines.String(), want) {
				t.Errorf("log: got %s, want %q in it", lines.String(), want)
			}
		}
		if n := strings.Count(lines.String(), "\n"); n != 3 {
			t.Errorf("log: got %d lines, want 3", n)
		}
	})
}
