package debug_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
)

// A gate may change in every way while many look at it and calls come and go. Each look shows a
// whole gate, and at rest no permit is lost.
func TestAGateChangesWhileLookedAt(t *testing.T) {
	gate := must(admit.New(admit.WithName("api"), admit.WithFixedLimit(4)))(t)
	h := must(debug.NewHandler(gate, must(admit.New(admit.WithName("idle")))(t)))(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	looked := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				debug.Forget(h)
				w := ask(h, http.MethodGet, "/?format=json")
				var s struct {
					Gates []struct {
						Name    string     `json:"name"`
						Classes []struct{} `json:"classes"`
						History []struct {
							Classes []struct{} `json:"classes"`
						} `json:"history"`
					} `json:"gates"`
				}
				if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || len(s.Gates) != 2 ||
					s.Gates[0].Name != "api" || len(s.Gates[0].Classes) < 4 {
					t.Errorf("a look: got %v, %+v, want both gates, and four classes or more", err, s)
					return
				}
				for _, m := range s.Gates[0].History {
					if len(m.Classes) != len(s.Gates[0].Classes) {
						t.Errorf("a moment: got %d classes, want %d", len(m.Classes), len(s.Gates[0].Classes))
					}
				}
				select {
				case looked <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	for i := range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				short, done := context.WithTimeout(ctx, 5*ms)
				if p, err := gate.Acquire(short, admit.Call{Method: "/a/B", Class: admit.Class(i + 3), Tenant: string(rune('a' + i))}); err == nil {
					p.Release(admit.Success)
				}
				done()
			}
		})
	}
	changes := []admit.Option{
		admit.WithFixedLimit(1), admit.WithClassConfig(5, admit.ClassConfig{Name: "reports", Max: 0.5}), admit.WithoutQueue(),
		admit.WithDryRun(true), admit.WithLogger(slog.New(slog.DiscardHandler)), admit.WithQueue(admit.QueueConfig{Policy: admit.Block}),
		admit.WithDryRun(false), admit.WithPressure(shut{}), admit.WithPressure(), admit.WithMaxOpen(2), admit.WithMaxOpen(0), admit.WithFixedLimit(64),
	}
	for n := range 2 * len(changes) {
		if err := gate.Update(changes[n%len(changes)]); err != nil {
			t.Errorf("Update: %v", err)
		}
		select {
		case <-looked:
		case <-time.After(time.Minute):
			t.Fatal("a look: got none within a minute, want one")
		}
	}
	gate.Drain()
	if w := ask(h, http.MethodGet, "/?format=json"); w.Code != http.StatusOK {
		t.Errorf("a gate that drains: got status %d, want 200", w.Code)
	}
	cancel()
	all.Wait()
	if s := gate.Stats(); s.InFlight != 0 || s.Queue != 0 {
		t.Errorf("at rest: got %d in flight and %d waiting, want none", s.InFlight, s.Queue)
	}
}

// A reader that stops in the middle of the page, as a process does that gets SIGSTOP, holds its
// response for a bounded time, and nothing of the next reader.
func TestAReaderThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := must(debug.NewHandler(must(admit.New())(t)))(t)
		var serving atomic.Int64
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			serving.Add(1)
			defer serving.Add(-1)
			h.ServeHTTP(w, r)
		})}
		lis := bufconn.Listen(1 << 10)
		served := make(chan error, 1)
		go func() { served <- server.Serve(lis) }()
		const readers = 20
		for range readers {
			conn := must(lis.Dial())(t)
			defer conn.Close()
			must(io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))(t)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := serving.Load(); got != readers {
			t.Errorf("readers that stopped, after a second: got %d of %d that are served, want all", got, readers)
		}
		if w := ask(h, http.MethodGet, "/"); w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("another reader meanwhile: got status %d and %d bytes, want the page", w.Code, w.Body.Len())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := serving.Load(); got != 0 {
			t.Errorf("readers that stopped, after a minute: got %d that are served, want 0", got)
		}
		_ = server.Close()
		<-served
	})
}
