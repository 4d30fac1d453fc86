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

// retries starts a server and a client whose retries the page shows. calls makes ten calls a second
// and looks after each.
func retries(t *testing.T, s service, c retry.Config) (p *grpctest.Pair, h *debug.Handler, calls func(time.Duration)) {
	t.Helper()
	meter := retry.NewMeter("to-stock")
	p = grpctest.Start(t, s.register, grpctest.DialOptions(must(interceptors.Client(interceptors.ClientConfig{
		Retry: &c, Retries: meter,
	}))(t)...))
	client := demopb.NewDemoServiceClient(p.Conn)
	h = must(debug.NewHandler(meter))(t)
	return p, h, func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * ms) {
			_, _ = client.Work(t.Context(), &demopb.WorkRequest{})
			look(t, h)
		}
	}
}

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
		p, h, calls := retries(t, s, retry.Config{BudgetRatio: 1})
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
		shown := look(t, h)
		if r := shown.GetRetries(); len(r) != 1 || r[0].GetMeter() != "to-stock" || !strings.HasSuffix(r[0].GetMethod(), "/Work") ||
			r[0].GetRetries() < 100 || r[0].GetRecent() != 0 || r[0].GetWithheld() != 0 {
			t.Errorf("retries: got %v, want those of one method, some of them and none lately", r)
		}
		if b := shown.GetRetryBudgets(); len(b) != 1 || b[0].GetMost() != 50 || b[0].GetTokens() != 50 || b[0].GetTarget() != p.Conn.CanonicalTarget() {
			t.Errorf("budgets: got %v, want 50 of 50 tokens for %s", b, p.Conn.CanonicalTarget())
		}
	})
}

// A budget that is used up is a finding for as long as calls are not sent again, and the page has
// the tokens that are left.
func TestAUsedUpBudgetIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			if down.Load() {
				return nil, status.Error(codes.Unavailable, "down")
			}
			return &demopb.WorkResponse{}, nil
		}}
		p, h, calls := retries(t, s, retry.Config{BudgetTokens: 20})
		calls(20 * time.Second)
		down.Store(true)
		calls(20 * time.Second)
		time.Sleep(time.Second)
		wantSays(t, "a target that is down", finding(t, h, "retries to-stock"),
			"The retry budget of "+p.Conn.CanonicalTarget()+" is used up.", "DemoService/Work failed, and gRPC did not send them again")
		shown := look(t, h)
		if b := shown.GetRetryBudgets(); len(b) != 1 || b[0].GetTokens() != 0 || b[0].GetMost() != 20 {
			t.Errorf("budgets of a target that is down: got %v, want 0 of 20 tokens", b)
		}
		if r := shown.GetRetries(); len(r) != 1 || r[0].GetWithheld() < 100 || r[0].GetRecent() != 0 {
			t.Errorf("retries of a target that is down: got %v, want 100 calls or more that were not sent again, and no retries lately", r)
		}
		down.Store(false)
		calls(20 * time.Second)
		if got := finding(t, h, "retries to-stock"); got != "" {
			t.Errorf("a target that is well again: got the finding %q, want none", got)
		}
		if b := look(t, h).GetRetryBudgets(); b[0].GetTokens() < 15 {
			t.Errorf("budgets of a target that is well again: got %v, want them refilled by successes", b)
		}
	})
}
