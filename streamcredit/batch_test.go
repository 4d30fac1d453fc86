package streamcredit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A batch is no larger than its receiver takes: the bound that Open announces, or what gRPC is
// hardly ever configured below. It is a batch all the same.
func TestBatchesRespectTheBound(t *testing.T) {
	const count = 5_000
	for name, c := range map[string]struct {
		announced int64
		size      int // of elements
		most      int // of messages with several
		grpc      int // MaxCallRecvMsgSize
		beat      time.Duration
	}{
		"nothing announced, gRPC takes 16 KiB": {0, 1000, 8 << 10, 16 << 10, 0},
		"nothing announced, gRPC takes 8 KiB":  {0, 100, 8 << 10, 8 << 10, 0},
		"8,192 bytes announced":                {8192, 1000, 8192, 8192, 0},
		"1,500 bytes announced":                {1500, 100, 1500, 1500, 0},
		"100 bytes announced":                  {100, 7, 100, 200, 0},
		"1 MiB announced":                      {1 << 20, 1000, 32 << 10, 1 << 20, 0},
		"a heartbeat every 200 ms":             {1 << 20, 1000, 64 << 10 / 5, 1 << 20, 200 * time.Millisecond},
		"a heartbeat every nanosecond":         {0, 100, 64 << 10 / 10, 16 << 10, 1},
		"a heartbeat every minute":             {1 << 20, 1000, 32 << 10, 1 << 20, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
					both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
					for range count {
						if err == nil {
							err = both.Out.Send(stream.Context(), make([]byte, c.size))
						}
					}
					if err != nil {
						return err
					}
					return both.Close()
				}, &creditpb.Open{
					Features: append(allFeatures, creditpb.Feature_FEATURE_UNFINISHED), MaxMessageBytes: c.announced,
					Heartbeat: durationpb.New(c.beat), Initial: &creditpb.Request{N: count},
				}, grpctest.DialOptions(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(c.grpc))))
				largest := 0
				for got := 0; got < count; {
					f, n, err := r.recv()
					if err != nil {
						t.Fatalf("after %d elements: got %v, want %d", got, err, count)
					}
					if got += n; n > 1 {
						largest = max(largest, proto.Size(f))
					}
				}
				if largest > c.most || largest < c.most/2 {
					t.Errorf("the largest batch: got %d bytes, want at most %d, and not much less", largest, c.most)
				}
			})
		})
	}
}
