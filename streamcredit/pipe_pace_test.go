package streamcredit_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// pipeTo serves a stage: what a source sends without end goes to the client.
func pipeTo(t *testing.T, opts ...streamcredit.DuplexOption) func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
	source := connect(t, framesDown, opened(streamcredit.WithManualDemand()), nil)
	go func() {
		n := int64(1)
		for source.server.out.send(t.Context(), n) == nil {
			n++
		}
	}()
	return func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
		both, _, err := streamcredit.ServeFrames(stream, append(opts, streamcredit.SendOnly())...)
		if err != nil {
			return err
		}
		return streamcredit.Pipe(stream.Context(), source.client.in.(inOf[[]byte]).Receiver, both.Out, same)
	}
}

// A pipe follows its own progress, not the reports of its sink: a sink that asks once and
// reports nothing gets all that it asked for, without a pause.
func TestAPipeNeedsNoReports(t *testing.T) {
	for name, c := range map[string]struct {
		demand int64
		want   int
		opts   []streamcredit.DuplexOption
	}{
		"unbounded":                {math.MaxInt64, 20_000, nil},
		"unbounded, credit of 10":  {math.MaxInt64, 5_000, opened(streamcredit.WithMaxPeerCredit(10))},
		"1000, credit of 10":       {1_000, 1_000, opened(streamcredit.WithMaxPeerCredit(10))},
		"999, credit of 1":         {999, 999, opened(streamcredit.WithMaxPeerCredit(1))},
		"1003, credit of 1000":     {1_003, 1_003, opened(streamcredit.WithMaxPeerCredit(1_000))},
		"5000, without a bound":    {5_000, 5_000, nil},
		"unbounded, credit of 1e9": {math.MaxInt64, 5_000, opened(streamcredit.WithMaxPeerCredit(1e9))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := receiveRaw(t, pipeTo(t, c.opts...), &creditpb.Open{Initial: &creditpb.Request{N: c.demand}})
				start := time.Now()
				r.elements(c.want)
				if took := time.Since(start); took > 0 {
					t.Errorf("%d elements took %v, want no pause: nothing is slow", c.want, took)
				}
			})
		})
	}
}

// weir's own sink is not held back by the interval of its reports.
func TestAPipeRunsAtTheSpeedOfItsSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := lay(t, t.Context(), opened(streamcredit.WithMaxPeerCredit(10)), same, same)
		p.flow(t.Context())
		if err := p.sink.Request(math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		take(t, p.sink, 1, 5_000)
		if took := time.Since(start); took > 0 {
			t.Errorf("5000 elements took %v, want no pause: nothing is slow", took)
		}
	})
}
