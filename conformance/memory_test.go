package main_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/conformance/conformancepb"
	"github.com/weir-go/weir/conformance/internal/goend"
	"github.com/weir-go/weir/conformance/internal/rules"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/internal/racetest"
	"github.com/weir-go/weir/streamcredit"
)

const mib = 1 << 20

// A hostile peer costs little: the rules that send without end are run over sockets and the heap of both
// sides is looked at all the while.
func TestHostilePeersCostLittle(t *testing.T) {
	for number, limit := range map[int]int64{
		22: 16 * mib, // a flood of requests
		36: 16 * mib, // a burst of elements
		40: 32 * mib, // a giant element: on both sides, as bytes and as a message
	} {
		r := rule(t, number)
		for _, end := range allEnds {
			t.Run(end.name+"/"+r.Title(), func(t *testing.T) {
				target := end.start(t, grpctest.OverSocket())
				var result rules.Result
				most := peak(func() { result = rules.Check(t.Context(), r, target, rules.Config{Settle: 10 * time.Millisecond}) })
				if result != (rules.Result{}) {
					t.Error(result)
				}
				if most > limit {
					t.Errorf("got a heap of %d bytes more than before, want at most %d", most, limit)
				}
			})
		}
	}
}

// settled returns how many goroutines there are once their number no longer changes, or after
// a while: clients ask for their next session a moment after the last.
func settled() int {
	n := runtime.NumGoroutine()
	for same, looks := 0, 0; same < 20 && looks < 3000; same, looks = same+1, looks+1 {
		time.Sleep(10 * time.Millisecond)
		if now := runtime.NumGoroutine(); now != n {
			n, same = now, 0
		}
	}
	return n
}

// Rule 69: streams that were opened and broken leave nothing.
func TestBrokenStreamsLeaveNothing(t *testing.T) {
	c := rules.Config{Settle: 10 * time.Millisecond}
	if testing.Short() || racetest.Enabled {
		c.Part = 20
	}
	r := rule(t, 69)
	for _, end := range allEnds {
		t.Run(end.name, func(t *testing.T) {
			target := end.start(t, grpctest.OverSocket())
			warm := rules.Config{Settle: c.Settle, Part: 100}
			if result := rules.Check(t.Context(), r, target, warm); result != (rules.Result{}) {
				t.Fatal(result)
			}
			before, goroutines := heap(), settled()
			if result := rules.Check(t.Context(), r, target, c); result != (rules.Result{}) {
				t.Fatal(result)
			}
			eventually(t, fmt.Sprintf("at most %d goroutines, as before", goroutines), func() bool {
				return runtime.NumGoroutine() <= goroutines
			})
			const limit = 2 * mib
			eventually(t, fmt.Sprintf("a heap at most %d bytes larger than before", limit), func() bool {
				return heap()-before <= limit
			})
		})
	}
}

// script is one for weir's server, to send without end.
func script(size int32) streamcredit.Option {
	return streamcredit.WithSetup(&conformancepb.RunRequest{Script: &conformancepb.Script{
		Send: &conformancepb.Send{Count: 1 << 40, PayloadBytes: size, FirstRequestTimeoutMs: 600_000},
	}})
}

// A subscriber receives from weir's server end.
type subscriber = streamcredit.Receiver[*conformancepb.RunResponse]

// subscribe begins to receive elements of that size.
func subscribe(t *testing.T, conn grpc.ClientConnInterface, size int32, opts ...streamcredit.ReceiveOption) *subscriber {
	t.Helper()
	suite := conformancepb.NewConformanceServiceClient(conn)
	in, err := streamcredit.DialReceive(t.Context(), suite.Run, append(opts, script(size))...)
	if err != nil {
		t.Fatalf("subscribing: got %v, want no error", err)
	}
	return in
}

// Rule 32: streams that open and never ask for anything cost no time of a processor.
func TestSlowStreamsCostNoTime(t *testing.T) {
	const streams, length = 1000, time.Second
	target := grpctest.Start(t, new(goend.Server).Register, grpctest.OverSocket())
	for range streams {
		in := subscribe(t, target.Conn, 10, streamcredit.WithManualDemand())
		defer in.Close()
		if err := in.Request(1); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Recv(t.Context()); err != nil { // now it is known to have begun
			t.Fatal(err)
		}
	}
	before := busy(t)
	<-time.After(length)
	// Idle, a process is busy for a few milliseconds of a second. A loop of any kind takes all of one processor.
	if got := busy(t) - before; got > length/4 {
		t.Errorf("got %v of processor time in %v for %d streams that do nothing, want next to none", got, length, streams)
	}
}

// The title of a rule is a name of a test.
func TestTitles(t *testing.T) {
	for _, r := range rules.All() {
		if strings.ContainsAny(r.Title(), " /") {
			t.Errorf("got title %q, want no space and no slash", r.Title())
		}
	}
}
