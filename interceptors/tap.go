package interceptors

import (
	"context"

	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
)

// Tap returns a handle for grpc.InTapHandle. It refuses calls that the gate would refuse at
// once, before gRPC reads their message or starts a goroutine
// for them. Use it in addition to the interceptors, which take the permits. Its refusals
// count as refusals of the gate. It never waits.
//
// A tap can do less than an interceptor. Its status has the code of the reason, but no
// details and no trailer. Clients get no delay and use their own backoff. A matcher or
// classifier gets the metadata of the call in the context, but not the message and not the
// values that an interceptor would add. Every call looks unary. If a matcher or classifier
// panics in the tap, the call goes on to the interceptors.
//
// A refused call with a deadline keeps the timer of its context, about 300 bytes, until that
// deadline, because grpc-go 1.85 does not cancel it.
//
// Use a tap if refusals alone use up the processor. Do not use one if clients rely on the
// delay of the server, or if refusals are many and deadlines long (a minute or more). It
// improves neither goodput nor latency. Compare on two quiet processors:
//
//	WEIR_BENCH_SECONDS=5 go test -run='^$' -bench='OneCore$' -benchtime=1x ./examples/internal/rawload
//
// With a nil gate every call fails with INTERNAL.
func Tap(g *admit.Gate, opts ...ServerOption) tap.ServerInHandle {
	c := serverConfig(opts)
	if err := c.cannotWork(g); err != nil {
		return func(ctx context.Context, _ *tap.Info) (context.Context, error) { return ctx, err }
	}
	return c.tap(g)
}

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
