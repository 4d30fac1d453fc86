package interceptors

import (
	"context"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/callctx"
)

// serverCall reports whether a call on a server is subject to the gate, and describes the
// call for it. It keeps nothing beyond the call, because callers choose method names and can
// invent any number. req is nil before the message is read, and info is nil for unary calls.
func (c *config) serverCall(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) (admit.Call, bool) {
	if !c.noExemptions && exempt(method) {
		return admit.Call{}, false
	}
	if c.indifferent() {
		return admit.Call{Method: method}, true
	}
	return c.choose(ctx, middleware.NewServerCallMeta(method, info, req))
}

// clientCall is serverCall for the calls of a client. desc is nil for unary ones.
func (c *config) clientCall(ctx context.Context, method string, desc *grpc.StreamDesc, req any) (admit.Call, bool) {
	if c.indifferent() {
		return admit.Call{Class: callctx.Class(ctx), Method: method}, true
	}
	return c.choose(ctx, middleware.NewClientCallMeta(method, desc, req))
}

// indifferent reports whether no option needs to look at the call.
func (c *config) indifferent() bool {
	return c.matcher == nil && c.classifier == nil && c.classes == nil && c.tenant == nil && c.cost == nil
}

func (c *config) choose(ctx context.Context, meta CallMeta) (call admit.Call, subject bool) {
	if c.matcher != nil && !c.matcher.Match(ctx, meta) {
		return call, false
	}
	call.Method = meta.FullMethod()
	call.Class = c.classOf(ctx, meta)
	if c.tenant != nil {
		call.Tenant = c.tenant(ctx, meta)
	}
	if c.cost != nil {
		call.Cost = c.cost(ctx, meta)
	}
	return call, true
}

func (c *config) classOf(ctx context.Context, meta CallMeta) admit.Class {
	for _, rule := range c.classes {
		if rule.matcher.Match(ctx, meta) {
			return rule.class
		}
	}
	if c.classifier != nil {
		return c.classifier(ctx, meta)
	}
	if c.leaves {
		return callctx.Class(ctx)
	}
	return admit.Default
}

// exempt reports whether a full method name, as in "/service/method", belongs to a service
// that must answer when the server is full.
func exempt(method string) bool {
	rest, ours := strings.CutPrefix(method, "/grpc.")
	if !ours {
		return strings.HasPrefix(method, "/weir.debug.v1.DebugService/")
	}
	service, _, _ := strings.Cut(rest, "/")
	switch service {
	case "health.v1.Health",
		"reflection.v1.ServerReflection",
		"reflection.v1alpha.ServerReflection",
		"channelz.v1.Channelz":
		return true
	}
	return false
}
