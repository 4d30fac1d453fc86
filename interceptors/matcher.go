package interceptors

import (
	"context"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"

	"github.com/weir-go/weir/interceptors/internal/match"
)

type (
	// CallMeta describes a call to a matcher or a classifier. It has the service, method
	// and kind of the call, and the request of a unary call. It is the CallMeta of
	// go-grpc-middleware.
	CallMeta = middleware.CallMeta

	// A Matcher chooses calls. It is the Matcher of go-grpc-middleware, so its selectors
	// can be used. See [Methods] and [MatchFunc].
	Matcher = selector.Matcher
)

// MatchFunc returns a matcher that asks f.
func MatchFunc(f func(ctx context.Context, c CallMeta) bool) Matcher { return selector.MatchFunc(f) }

// Methods matches calls by name, as gRPC writes it: "/shop.Orders/Buy" is a method, and
// "/shop.Orders/" is all methods of a service. There are no wildcards. A name of another
// form is an error of [Server] and [Client]. In an interceptor that was made without them,
// it fails every call with INTERNAL.
func Methods(names ...string) Matcher { return match.New(names...) }
