package main_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/conformance/internal/rawend"
	"github.com/weir-go/weir/conformance/internal/rules"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/internal/racetest"
)

// rawEnds are the four kinds of ends of an implementation that shares no code with weir.
func rawEnds(fault rawend.Fault) []end {
	return []end{
		{"server/embedded", rawServer(fault, false)},
		{"server/frames", rawServer(fault, true)},
		{"client/embedded", rawClient(fault, false)},
		{"client/frames", rawClient(fault, true)},
	}
}

func rawServer(fault rawend.Fault, framed bool) func(t *testing.T, opts ...grpctest.Option) rules.Target {
	return func(t *testing.T, _ ...grpctest.Option) rules.Target {
		t.Helper()
		l := bufconn.Listen(256 << 10)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = (&rawend.Server{Fault: fault}).Serve(l) // until it is closed
		}()
		opts := append(rules.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		conn, err := grpc.NewClient("passthrough:///raw", opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = conn.Close(), l.Close() // once each
			<-served
		})
		return rules.ServerEnd{Conn: conn, Framed: framed}
	}
}

func rawClient(fault rawend.Fault, framed bool) func(t *testing.T, opts ...grpctest.Option) rules.Target {
	return func(t *testing.T, opts ...grpctest.Option) rules.Target {
		t.Helper()
		clients := rules.NewClients()
		p := grpctest.Start(t, clients.Register, append(opts, grpctest.ServerOptions(rules.ServerOptions()...))...)
		ended := make(chan error, 1)
		conn := p.NetConn(t)
		go func() { ended <- rawend.Drive(context.WithoutCancel(t.Context()), conn, fault) }()
		t.Cleanup(func() { // before those of p
			clients.Close()
			if err := <-ended; err != nil {
				t.Errorf("the client ended with %v, want no error", err)
			}
		})
		return clients.End(framed)
	}
}

// checkInBubble checks a rule against a new end, in a bubble of its own.
func checkInBubble(t *testing.T, r rules.Rule, e end, part int) (result rules.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		result = rules.Check(t.Context(), r, e.start(t), rules.Config{Settle: time.Second, Exact: true, Part: part})
	})
	return result
}

// The rules can be kept by who has nothing but credit.proto: frames of HTTP/2 and fields of protobuf by hand.
func TestRawPeerKeepsTheRules(t *testing.T) {
	for _, e := range rawEnds(rawend.None) {
		t.Run(e.name, func(t *testing.T) {
			for _, r := range rules.All() {
				t.Run(r.Title(), func(t *testing.T) {
					result := checkInBubble(t, r, e, part())
					if result.Err != nil {
						t.Errorf("%s\n%v", r.Proves, result.Err)
					}
					if result.Skipped != "" {
						t.Skip(result.Skipped)
					}
				})
			}
		})
	}
}

// Each of the rules about faults notices an end that has that fault and no other one.
func TestRulesNoticeEachFault(t *testing.T) {
	const server, client, both = 1, 2, 3
	for _, c := range []struct {
		fault rawend.Fault
		rule  int
		of    int
	}{
		{rawend.Expires, 72, both},
		{rawend.BeatsSlowly, 73, both},
		{rawend.BatchesTooMuch, 74, both},
		{rawend.AsksTooMuch, 75, both},
		{rawend.WantsReports, 76, both},
		{rawend.AnnouncesNothing, 77, both},
		{rawend.IgnoresAnnouncements, 77, both},
		{rawend.Floods, 78, both},
		{rawend.DropsBuffered, 79, both},
		{rawend.LosesTheLast, 80, server},
		{rawend.IgnoresTrailers, 81, client},
		{rawend.ReportsLate, 82, server},
		{rawend.TrustsOK, 83, client},
		{rawend.HidesBound, 84, both},
		{rawend.WaitsForEver, 85, both},
	} {
		for i, e := range rawEnds(c.fault) {
			if of := 1 + i/2; of&c.of == 0 {
				continue
			}
			r := rule(t, c.rule)
			if r.Only == rules.Framed && i%2 == 0 {
				continue
			}
			t.Run(r.Title()+"/"+e.name, func(t *testing.T) {
				if result := checkInBubble(t, r, e, part()); result.Err == nil {
					t.Errorf("got %+v with fault %d, want that the rule fails", result, c.fault)
				} else {
					t.Log(result.Err)
				}
			})
		}
	}
}

// essential are the rules in which goroutines of an end meet.
var essential = []int{2, 8, 9, 10, 12, 34, 42, 50, 52, 53, 56, 57, 60, 62, 63, 64, 72, 75, 76, 79, 80, 82, 83}

// The essential rules hold on one processor, on two and on eight.
func TestEssentialRulesOnSeveralProcessors(t *testing.T) {
	for _, procs := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			for i, number := range essential {
				r := rule(t, number)
				for j, e := range allEnds {
					if racetest.Enabled && (i+j+procs)%2 == 1 {
						continue // half of them, as it is slow there
					}
					if result := checkInBubble(t, r, e, 200); result.Err != nil {
						t.Errorf("%s/%s: %s\n%v", e.name, r.Title(), r.Proves, result.Err)
					}
				}
			}
		})
	}
}
