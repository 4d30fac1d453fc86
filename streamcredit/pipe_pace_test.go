package streamcredit_test

import (
	"context"
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
		both, _, err := streamcredit.ServeFrames(stream, append(opts, streamcredit.WithSendOnly())...)
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
		"70000, without a bound":   {70_000, 70_000, nil},
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

// A sink that asks for very much and takes nothing does not make a pipe hold as much.
func TestAPipeHoldsLittleWhateverIsAskedFor(t *testing.T) {
	const window, source = 1 << 16, 70_000
	for name, c := range map[string]struct {
		demand []int64
		most   int64
		opts   []streamcredit.DuplexOption
	}{
		"2^31-1":                        {[]int64{math.MaxInt32}, window, nil},
		"2^63-2":                        {[]int64{math.MaxInt64 - 1}, window, nil},
		"unbounded":                     {[]int64{math.MaxInt64}, 1 << 10, nil},
		"2^40, of a credit of 1,000":    {[]int64{1 << 40}, 1_000, opened(streamcredit.WithMaxPeerCredit(1_000))},
		"a little more than the window": {[]int64{window, 1}, window, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from := connect(t, framesDown, opened(streamcredit.WithManualDemand()), nil)
				go func() {
					for n, err := int64(1), error(nil); n <= source && err == nil; n++ {
						err = from.server.out.send(t.Context(), n)
					}
				}()
				r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
					both, _, err := streamcredit.ServeFrames(stream, append(c.opts, streamcredit.WithSendOnly())...)
					if err != nil {
						return err
					}
					large := func(context.Context, []byte) ([]byte, error) { return make([]byte, 64<<10), nil }
					return streamcredit.Pipe(stream.Context(), from.client.in.(inOf[[]byte]).Receiver, both.Out, large)
				}, &creditpb.Open{})
				for _, n := range c.demand {
					r.say(&creditpb.Control{Kind: &creditpb.Control_Request{Request: &creditpb.Request{N: n}}})
				}
				time.Sleep(time.Minute)
				s := from.client.in.Stats()
				if held := int64(s.Buffered + s.Held); held > c.most {
					t.Errorf("got %d elements in the pipe, want at most %d", held, c.most)
				}
				if least := c.most / 4; int64(s.Received) < least {
					t.Errorf("got %d elements from the source, want at least %d", s.Received, least)
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
