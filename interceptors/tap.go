package interceptors

import (
	"context"

	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
)

// tap returns the handle for ServerConfig.Tap. It runs in the transport's reader, so it never
// waits.
func (c *config) tap(g *admit.Gate) tap.ServerInHandle {
	full := c.refusals.OfTap(g.Name())
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if !gateFuncs.Full(g) {
			return ctx, nil
		}
		call, ok := c.mayTurnAway(ctx, info.FullMethodName)
		if !ok {
			return ctx, nil
		}
		if why, away := gateFuncs.TurnAway(ctx, g, call); away {
			return ctx, full[why]
		}
		return ctx, nil
	}
}

// mayTurnAway returns the description of a call for the gate. ok is false if a tap must not
// decide about the call. A call that comes back to this process must not wait for itself.
func (c *config) mayTurnAway(ctx context.Context, method string) (call admit.Call, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	call, subject := c.serverCall(ctx, method, nil, nil)
	return call, subject && !c.propagates
}
