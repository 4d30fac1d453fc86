package debug_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/internal/grpctest"
)

// The page shows how often calls are sent again, and warns while that is often.
func TestRetriesAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		var down atomic.Bool
		s := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			if n.Add(1)%2 == 0 && down.Load() {
				return nil, status.Error(codes.Unavailable, "every second one fails")
			}
			return &demopb.WorkResponse{}, nil
		}}
		meter := retry.NewMeter("to-stock")
		p := grpctest.Start(t, s.register, grpctest.DialOptions(must(interceptors.Client(interceptors.ClientConfig{
			Retry: &retry.Config{BudgetRatio: 1}, Retries: meter,
		}))(t)...))
		client := demopb.NewDemoServiceClient(p.Conn)
		h := must(debug.NewHandler(meter))(t)
		calls := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * ms) {
				_, _ = client.Work(t.Context(), &demopb.WorkRequest{})
				look(t, h)
			}
		}
		calls(20 * time.Second)
		if got := finding(t, h, "retries to-stock"); got != "" {
			t.Errorf("a target that is well: got the finding %q, want none", got)
		}
		down.Store(true)
		calls(20 * time.Second)
		time.Sleep(time.Second)
		wantSays(t, "a target that fails", finding(t, h, "retries to-stock"), "DemoService/Work", "1 retries per call")
		down.Store(false)
		calls(20 * time.Second)
		if got := finding(t, h, "retries to-stock"); got != "" {
			t.Errorf("a target that is well again: got the finding %q, want none", got)
		}
		shown := look(t, h).GetOthers()
		if len(shown) != 1 || shown[0].GetKind() != "retries" || len(shown[0].GetFields()) != 1 ||
			!strings.Contains(shown[0].GetFields()[0].GetValue(), "retries per call") {
			t.Errorf("others: got %v, want the retries of one method", shown)
		}
	})
}
