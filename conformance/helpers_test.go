package main_test

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-go/weir/conformance/internal/goend"
	"github.com/weir-go/weir/conformance/internal/rules"
	"github.com/weir-go/weir/internal/grpctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An end is a kind of end, and how to get one of weir's.
type end struct {
	name  string
	start func(t *testing.T, opts ...grpctest.Option) rules.Target
}

// allEnds are the four kinds of ends.
var allEnds = []end{
	{"server/embedded", server(false)},
	{"server/frames", server(true)},
	{"client/embedded", client(false)},
	{"client/frames", client(true)},
}

// server starts weir's server end.
func server(framed bool) func(t *testing.T, opts ...grpctest.Option) rules.Target {
	return func(t *testing.T, opts ...grpctest.Option) rules.Target {
		t.Helper()
		p := grpctest.Start(t, new(goend.Server).Register, append(opts, grpctest.DialOptions(rules.DialOptions()...))...)
		return rules.ServerEnd{Conn: p.Conn, Framed: framed}
	}
}

// client starts weir's client end.
func client(framed bool) func(t *testing.T, opts ...grpctest.Option) rules.Target {
	return func(t *testing.T, opts ...grpctest.Option) rules.Target {
		t.Helper()
		clients := rules.NewClients()
		p := grpctest.Start(t, clients.Register, append(opts, grpctest.ServerOptions(rules.ServerOptions()...))...)
		ended := make(chan error, 1)
		go func() { ended <- goend.Drive(context.WithoutCancel(t.Context()), p.Conn) }()
		t.Cleanup(func() { // before those of p
			clients.Close()
			if err := <-ended; err != nil {
				t.Errorf("the client ended with %v, want no error", err)
			}
		})
		return clients.End(framed)
	}
}

// heap returns how many bytes are reachable.
func heap() int64 {
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}} // without what becomes garbage meanwhile
	metrics.Read(live)
	return int64(live[0].Value.Uint64())
}

// peak returns how much the heap was larger at most while f ran than before.
func peak(f func()) (most int64) {
	before := heap()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		most = max(most, heap()-before)
		select {
		case <-done:
			return most
		case <-tick.C:
		}
	}
}

// eventually waits until what holds; without that, the test fails after a minute.
func eventually(t *testing.T, want string, what func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(time.Minute); !what(); {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("got not, within a minute: %s", want)
		}
	}
}

// rule returns the rule with that number.
func rule(t *testing.T, number int) rules.Rule {
	t.Helper()
	for _, r := range rules.All() {
		if r.Number == number {
			return r
		}
	}
	t.Fatalf("got no rule %d, want one", number)
	return rules.Rule{}
}
