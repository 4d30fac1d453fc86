package streamcredit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/racetest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// askAndDrain asks for ten elements, takes what comes within t and drains, again and again.
func askAndDrain(t *testing.T, in inlet, rounds int, patience time.Duration) {
	t.Helper()
	for round := range rounds {
		if err := in.Request(10); err != nil {
			t.Fatalf("Request, round %d: got %v, want no error", round+1, err)
		}
		for {
			if _, err := in.recv(within(t, patience)); errors.Is(err, context.DeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatalf("Recv, round %d: got %v, want an element or none", round+1, err)
			}
		}
		if _, err := in.Drain(within(t, time.Minute)); err != nil {
			t.Fatalf("Drain, round %d: got %v, want no error", round+1, err)
		}
	}
}

// What a receiver asks for is never a flood, whether elements flow or not.
func TestAskingAndDrainingIsNoFlood(t *testing.T) {
	rounds := 1_000
	if racetest.Enabled {
		rounds = 800 // 500 at once, without an element, would be a flood
	}
	for name, c := range map[string]struct {
		pace     time.Duration // of the source; 0: it has nothing
		patience time.Duration
	}{
		"an idle source":              {0, time.Millisecond},
		"an idle source, no patience": {0, time.Nanosecond},
		"a slow source":               {15 * time.Millisecond, time.Millisecond},
		"a quick source":              {2 * time.Millisecond, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				manual := opened(streamcredit.WithManualDemand())
				e := connect(t, k, manual, manual)
				out, in := e.down()
				sender := later(func() {
					for n := int64(1); c.pace > 0 && out.send(e.ctx, n) == nil; n++ {
						time.Sleep(c.pace)
					}
				})
				askAndDrain(t, in, rounds, c.patience)
				e.end()
				time.Sleep(time.Second) // a bubble cannot end while it sleeps
				if !sender.Load() {
					t.Error("Send waits after the end of the stream")
				}
			})
		})
	}
}

// A receiver may ask for one element as often as it has received one, at any time: what it
// saves up does not expire.
func TestARequestForEachElementIsNoFlood(t *testing.T) {
	for _, held := range []int{1_500, 3_000, 10_000} {
		synctest.Test(t, func(t *testing.T) {
			r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
				both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
				for err == nil {
					err = both.Out.Send(stream.Context(), []byte("element"))
				}
				return err
			}, &creditpb.Open{Features: allFeatures, Initial: &creditpb.Request{N: int64(held)}})
			r.elements(held)
			for range held {
				r.say(&creditpb.Control{Kind: &creditpb.Control_Request{Request: &creditpb.Request{N: 1}}})
			}
			r.elements(held)
		})
	}
}

// A flood is a flood after elements, too, and after any pause.
func TestAFloodAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const elements, burst = 500, 1_000
		r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
			for err == nil {
				err = both.Out.Send(stream.Context(), []byte("element"))
			}
			return err
		}, &creditpb.Open{Features: allFeatures, Initial: &creditpb.Request{N: elements}})
		r.elements(elements)
		time.Sleep(time.Hour)
		go func() {
			for range 2*burst + elements + 1 { // a bucket that is looked at when it is empty may be filled twice
				_ = r.stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: &creditpb.Control{
					Kind: &creditpb.Control_Heartbeat{Heartbeat: &creditpb.Heartbeat{}},
				}}})
			}
		}()
		for {
			if _, _, err := r.recv(); err != nil {
				wantViolation(t, err, streamcredit.ControlFlood)
				return
			}
		}
	})
}

// wantViolation wants err to be the status of a violation for that reason.
func wantViolation(t *testing.T, err error, want streamcredit.Reason) {
	t.Helper()
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == string(want) && info.GetDomain() == "weir" && st.Code() == want.Code() {
			return
		}
	}
	t.Errorf("got %v with details %v, want %v with the reason %s", err, st.Details(), want.Code(), want)
}
