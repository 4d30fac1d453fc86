package interceptors

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/callctx"
	"github.com/weir-go/weir/interceptors/internal/latency"
	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// outcome maps the end of a unary call to an outcome for the limit. cc is nil on a server.
func (m *member) outcome(
	ctx context.Context, c *config, cc *grpc.ClientConn, method string, permit *admit.Permit, err error,
) admit.Outcome {
	if err == nil && m.paces.Learns() {
		m.paces.Of(cc, method).Saw(permit.HeldFor(), m.paces.Now())
	}
	switch {
	case err != nil && refusal.Ours(err):
		return admit.Ignored
	case c.outcomeOf != nil:
		return c.outcomeOf(err)
	case err == nil:
		return admit.Success
	}
	switch st := refusal.StatusOf(err); st.Code() {
	case codes.DeadlineExceeded:
		if m.fair(ctx, cc, method, permit.HeldFor()) {
			return admit.Overload
		}
		return admit.Ignored
	case codes.Unavailable:
		if refusal.Unreached(st) {
			return admit.Ignored
		}
		return admit.Overload
	case codes.ResourceExhausted:
		if refusal.Full(st) {
			return admit.Overload
		}
		return admit.Ignored
	default:
		return admit.Ignored
	}
}

// gatePatience is the time without an answer after which a deadline is fair if it is as long
// as the calls of its method usually take, and any deadline is fair for a method that never
// answered.
const gatePatience = 250 * time.Millisecond

// fair reports whether a call that ended with DEADLINE_EXCEEDED had as much time as its
// method takes without congestion. A call that the other side ended by itself had.
func (m *member) fair(ctx context.Context, cc *grpc.ClientConn, method string, had time.Duration) bool {
	p := m.paces.Of(cc, method)
	m.paces.Wonder()
	dry := p.Late(m.paces.Now())
	if !callctx.TimeIsUp(ctx, had) {
		return true
	}
	mean, dev := p.Unloaded()
	return latency.Fair(had, mean, dev, dry, gatePatience)
}
