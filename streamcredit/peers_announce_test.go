package streamcredit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// The heartbeat that announces a large element comes before it, and counts as sent what came before.
func TestAnAnnouncementCountsWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, count, credit = 256 << 10, 3, 10
		r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
			for range count {
				if err == nil {
					err = both.Out.Send(stream.Context(), make([]byte, size))
				}
			}
			if err != nil {
				return err
			}
			return both.Out.Finish(stream.Context())
		}, &creditpb.Open{
			Features: allFeatures, Initial: &creditpb.Request{N: credit}, Heartbeat: durationpb.New(time.Second),
		})
		for sent, announced := 0, 0; sent < count; {
			f, n, err := r.recv()
			if err != nil {
				t.Fatal(err)
			}
			sent += n
			if b := f.GetControl().GetHeartbeat(); b.GetNextBytes() > 0 {
				announced++
				if b.GetSent() != uint64(sent) || b.GetCredit() != int64(credit-sent) {
					t.Errorf("heartbeat before element %d: got %v, want sent %d and credit %d", sent+1, b, sent, credit-sent)
				}
			}
			if announced < sent {
				t.Errorf("got %d announcements before element %d, want one for each", announced, sent)
			}
		}
	})
}
