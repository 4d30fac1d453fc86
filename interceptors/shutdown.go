package interceptors

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
)

// Shutdown stops a server in good order. It sends the clients away
// (grpc.Server.GracefulStop) and drains the gates, so that waiting calls are refused at
// once and can go elsewhere. Then it waits for the calls that run. If ctx ends first, it
// ends the remaining calls (grpc.Server.Stop). Their contexts end, and their clients see
// UNAVAILABLE.
//
// It returns nil if every call ended by itself. Otherwise the error says which calls had to
// be ended, and wraps the cause of the end of ctx. It also waits for calls without a gate,
// such as a health watch, which never ends by itself. So give ctx a deadline.
//
// A stream after [StreamReady] holds no permit, but Shutdown waits for it like for any other.
// gRPC does not tell a handler that the server stops. So end long streams yourself when the
// program begins to shut down, or they end with ctx. A client that does not read the end of
// its stream keeps its connection open until ctx ends.
//
// gRPC waits for connections that are being set up, even in Stop, and tells its clients nothing
// before. A connection that sends nothing, such as the probe of a load balancer, may therefore
// hold up Shutdown beyond the end of ctx, for as long as grpc.ConnectionTimeout allows. That is
// 10 s from its start for the options of [Server], and otherwise two minutes by default.
//
// A running call keeps its permit until its handler returns, so a gate may have calls in
// flight when Shutdown returns an error. Shutdown does not wait for a handler that continues
// after its context ended, unless the server has the option grpc.WaitForHandlers.
//
// Set the health service to NOT_SERVING first if something else must learn of the shutdown,
// such as a load balancer that does not speak gRPC. Do not drain the gates that early,
// because every call of a client that stays with this server would be refused.
//
// Shutdown may be called again, also while it runs. A nil server and nil gates are skipped.
// Gates of clients may be among the gates.
func Shutdown(ctx context.Context, server *grpc.Server, gates ...*admit.Gate) error {
	stopped := make(chan struct{})
	go func() { // ends with the last handler at the latest
		defer close(stopped)
		if server != nil {
			server.GracefulStop()
		}
	}()
	for _, g := range gates {
		if g != nil {
			g.Drain()
		}
	}
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-stopped: // at the same time
		return nil
	default:
	}
	left := inFlight(gates)
	server.Stop()
	return fmt.Errorf("interceptors: shutdown: %w: ended %s", context.Cause(ctx), left)
}

// inFlight describes the calls that run, for each gate.
func inFlight(gates []*admit.Gate) string {
	var running []string
	for _, g := range gates {
		if g == nil {
			continue
		}
		switch s := g.Stats(); {
		case s.Ready > 0:
			running = append(running, fmt.Sprintf("%d open (gate %q)", s.InFlight+s.Ready, s.Name))
		case s.InFlight > 0:
			running = append(running, fmt.Sprintf("%d in flight (gate %q)", s.InFlight, s.Name))
		}
	}
	if len(running) == 0 {
		return "calls that no gate guards, such as a health watch"
	}
	return strings.Join(running, ", ") + ", and what no gate guards"
}
