package interceptors

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
)

// Shutdown ends a server in good order. It has the server send its clients away
// (grpc.Server.GracefulStop), drains the gates, so that the calls that wait go elsewhere
// at once, and waits for the calls that run. When ctx ends first, it ends what is left
// (grpc.Server.Stop): the contexts of those calls end, and their clients see UNAVAILABLE.
//
// It returns nil when every call ended by itself. Otherwise the error says what had to be
// ended, and wraps the cause of ctx's end. Calls that no gate guards, such as a health
// watch, which never ends by itself, are waited for as well, so give ctx a deadline.
//
// A stream that has given its permit back ([StreamReady]) is waited for like any other, and
// ends with ctx at the latest. A watch that can end earlier should do so when its program begins
// to shut down: gRPC does not tell it. A client that does not read the end of its stream holds
// its connection until ctx ends.
//
// A call that runs keeps its permit until its handler returns, so a gate may have calls in
// flight when Shutdown returns an error. It does not wait for a handler that goes on after
// its context ended, unless the server has the option grpc.WaitForHandlers.
//
// Set the health service to NOT_SERVING before, where something else has to learn of it
// first, such as a load balancer that does not speak gRPC. Do not drain the gates that
// early: a client that stays with this server would find every call refused.
//
// Calling it again, also while it runs, does no harm. A nil server, and nil gates, are
// left out. Gates of clients may be among them.
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

// inFlight says how many calls run, for each gate.
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
