package interceptors

import (
	"context"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
)

// serverClass says whether a call on a server is subject to the gate, and its
// class. It remembers nothing: method names are the caller's, and there is no
// end of them. req is nil before the message is read, info for unary calls.
func (c *config) serverClass(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) (admit.Class, bool) {
	if !c.noExemptions && exempt(method) {
		return admit.Default, false
	}
	if c.indifferent() {
		return admit.Default, true
	}
	return c.choose(ctx, middleware.NewServerCallMeta(method, info, req))
}

// clientClass is serverClass for calls that leave; desc is nil for unary ones.
func (c *config) clientClass(ctx context.Context, method string, desc *grpc.StreamDesc, req any) (admit.Class, bool) {
	if c.indifferent() {
		return admit.Default, true
	}
	return c.choose(ctx, middleware.NewClientCallMeta(method, desc, req))
}

// indifferent reports that nobody wants to look at calls.
func (c *config) indifferent() bool { return c.matcher == nil && c.classifier == nil }

func (c *config) choose(ctx context.Context, meta middleware.CallMeta) (admit.Class, bool) {
	if c.matcher != nil && !c.matcher.Match(ctx, meta) {
		return admit.Default, false
	}
	if c.classifier == nil {
		return admit.Default, true
	}
	return c.classifier(ctx, meta), true
}

// exempt reports whether a full method name, as in "/service/method", belongs to
// a service that has to answer when the server is full.
func exempt(method string) bool {
	rest, ours := strings.CutPrefix(method, "/grpc.")
	if !ours {
		return false
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
