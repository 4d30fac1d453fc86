package interceptors

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
)

// Families counts the gates that are remembered.
func Families() int {
	n := 0
	families.Range(func(any, any) bool { n++; return true })
	return n
}

// UnaryPropagation and StreamPropagation are the interceptors for ClientConfig.Propagate.
var (
	UnaryPropagation  = unaryPropagation
	StreamPropagation = streamPropagation
)

// Tap returns the tap handle of a server with one gate.
func Tap(g *admit.Gate, opts ...ServerOption) tap.ServerInHandle {
	c := serverConfig(opts)
	return c.tap(g)
}

// UnaryRestore is the interceptor that gives calls back the refusals that gRPC lost.
var UnaryRestore = unaryRestore

// UnaryOf returns the interceptor of a server with several gates.
func UnaryOf(c ServerConfig) grpc.UnaryServerInterceptor {
	return c.router(unaryServer, c.Gate, serverConfig(nil)).unary
}
