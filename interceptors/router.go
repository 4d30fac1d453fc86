package interceptors

import (
	"context"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
)

// A router sends each call to its gate.
type router struct {
	config  *config
	exempts bool
	routes  []route
	rest    *server // nil if calls without a route are not limited
	turn    tap.ServerInHandle
}

type route struct {
	match Matcher // nil matches every call
	to    *server
	turn  tap.ServerInHandle
}

// router returns the router for calls of a kind, nil if one gate takes all of them.
func (c *ServerConfig) router(k kind, rest *admit.Gate, cfg config) *router {
	r := &router{config: &cfg, exempts: !cfg.noExemptions}
	for _, rule := range c.Gates {
		if rule.Streams == (k == streamServer) {
			r.routes = append(r.routes, route{rule.Match, cfg.server(rule.Gate, k), cfg.tap(rule.Gate)})
		}
	}
	switch {
	case len(r.routes) == 0:
		return nil
	case rest != nil:
		r.rest, r.turn = cfg.server(rest, k), cfg.tap(rest)
	}
	return r
}

// server returns the interceptor of a gate.
func (c *config) server(g *admit.Gate, k kind) *server {
	return &server{config: *c, member: join(g, k)}
}

// find returns where a call goes. Both results are nil if the call is not limited.
func (r *router) find(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) (*server, tap.ServerInHandle) {
	if r.exempts && exempt(method) {
		return nil, nil
	}
	meta := middleware.NewServerCallMeta(method, info, req)
	for i := range r.routes {
		if rt := &r.routes[i]; rt.match == nil || rt.match.Match(ctx, meta) {
			return rt.to, rt.turn
		}
	}
	return r.rest, r.turn
}

func (r *router) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s, _ := r.find(ctx, info.FullMethod, nil, req)
	if s == nil {
		return handler(ctx, req)
	}
	return s.unary(ctx, req, info, handler)
}

func (r *router) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s, _ := r.find(ss.Context(), info.FullMethod, info, nil)
	if s == nil {
		return r.config.withoutGate(srv, ss, info, handler)
	}
	return s.stream(srv, ss, info, handler)
}

// tap is the tap handle for all gates. While no gate is full, it does not look at the call.
func (r *router) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	full := r.rest != nil && gateFuncs.Full(r.rest.gate)
	for i := 0; i < len(r.routes) && !full; i++ {
		full = gateFuncs.Full(r.routes[i].to.gate)
	}
	if !full {
		return ctx, nil
	}
	if turn := r.findForTap(ctx, info.FullMethodName); turn != nil {
		return turn(ctx, info)
	}
	return ctx, nil
}

// findForTap returns nil if a matcher panics, because a panic in a tap ends the process.
func (r *router) findForTap(ctx context.Context, method string) (turn tap.ServerInHandle) {
	defer func() {
		if recover() != nil {
			turn = nil
		}
	}()
	_, turn = r.find(ctx, method, nil, nil)
	return turn
}
