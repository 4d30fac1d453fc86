package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-go/weir/conformance/internal/goend"
	"github.com/weir-go/weir/conformance/rules"
	"github.com/weir-go/weir/internal/grpctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends are the kinds of ends, and how a bubble gets one of weir's.
var ends = []struct {
	name  string
	start func(t *testing.T) rules.Target
}{
	{"server/embedded", func(t *testing.T) rules.Target { return server(t, false) }},
	{"server/frames", func(t *testing.T) rules.Target { return server(t, true) }},
	{"client/embedded", func(t *testing.T) rules.Target { return client(t, false) }},
	{"client/frames", func(t *testing.T) rules.Target { return client(t, true) }},
}

// server returns weir's server end.
func server(t *testing.T, framed bool) rules.Target {
	t.Helper()
	p := grpctest.Start(t, new(goend.Server).Register, grpctest.DialOptions(rules.DialOptions()...))
	return rules.ServerEnd{Conn: p.Conn, Framed: framed}
}

// client returns weir's client end.
func client(t *testing.T, framed bool) rules.Target {
	t.Helper()
	clients := rules.NewClients()
	p := grpctest.Start(t, clients.Register, grpctest.ServerOptions(rules.ServerOptions()...))
	ended := make(chan error, 1)
	go func() { ended <- goend.Drive(context.Background(), p.Conn) }()
	t.Cleanup(func() { // before those of p
		clients.Close()
		if err := <-ended; err != nil {
			t.Errorf("the client ended with %v, want no error", err)
		}
	})
	return clients.End(framed)
}

// Each rule has a bubble of its own, with a connection of its own: time is exact, and a goroutine
// that is left over fails it.
func TestRules(t *testing.T) {
	for _, end := range ends {
		t.Run(end.name, func(t *testing.T) {
			for _, rule := range rules.All() {
				t.Run(rule.Title(), func(t *testing.T) {
					var result rules.Result
					synctest.Test(t, func(t *testing.T) {
						result = rules.Check(t.Context(), rule, end.start(t), rules.Config{
							Settle: time.Second, Exact: true, Part: 20,
						})
						if result.Err != nil {
							t.Error(result.Err)
						}
					})
					if result.Skipped != "" {
						t.Skip(result.Skipped)
					}
				})
			}
		})
	}
}
