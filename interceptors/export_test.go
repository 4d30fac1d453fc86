package interceptors

import "google.golang.org/grpc"

// Families counts the gates that are remembered.
func Families() int {
	n := 0
	families.Range(func(any, any) bool { n++; return true })
	return n
}

// UnaryRestore is the interceptor that gives calls back the refusals that gRPC lost.
var UnaryRestore = unaryRestore

// UnaryOf returns the interceptor of a server with several gates.
func UnaryOf(c ServerConfig) grpc.UnaryServerInterceptor {
	return c.router(unaryServer, c.Gate, serverConfig(nil)).unary
}
