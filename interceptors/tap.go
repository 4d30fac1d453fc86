package interceptors

import (
	"context"

	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
)

// Tap returns a handle for grpc.InTapHandle that turns calls away which the gate
// would refuse at once, whatever their deadline, before gRPC reads their message
// or starts a goroutine for them. It is an addition to the interceptors: they take
// the permits. What the tap turns away counts as refused. It never waits.
//
// gRPC allows a tap little, so it does little. Its status has the code of the
// reason, with no details and no trailer, hence no delay: the client's own
// backoff applies. A matcher or classifier finds the metadata in the context, but
// not the message nor what an interceptor would add, and every call looks unary.
// One that panics here, where nothing could recover it, lets the call go on to
// the interceptors.
//
// A call with a deadline that is turned away keeps its context's timer, some
// 300 bytes, until that deadline, because grpc-go 1.85 does not cancel it.
//
// Use a tap if refusals themselves use up the processor: a refused call then starts
// no goroutine and its message is not decoded. Do without it if clients rely on the
// delay that the server asks for, or if deadlines are long (a minute or more) and
// refusals many. It brings no more goodput and no shorter latency. Compare
// on two quiet processors:
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
		if why, away := gateFuncs.TurnAway(g, call); away {
			return ctx, full[why]
		}
		return ctx, nil
	}
}

// mayTurnAway says what the gate is told of a call; or that it is not for a tap to
// decide on: calls that come back must not wait for themselves.
func (c *config) mayTurnAway(ctx context.Context, method string) (call admit.Call, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	call, subject := c.serverCall(ctx, method, nil, nil)
	return call, subject && !c.propagates
}
