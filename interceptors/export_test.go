package interceptors

import (
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/places"
)

// Families counts the gates that are remembered.
func Families() int {
	n := 0
	families.Range(func(any, any) bool { n++; return true })
	return n
}

// TableSize is how many circuits, or targets, are told apart.
const TableSize = places.Max

// Unjittered has circuits stay open for exactly what the configuration says.
func Unjittered(b *Breaker) { b.jittered = func(d time.Duration) time.Duration { return d } }

// Drawn has a throttle draw its numbers, from 0 up to 1, from f.
func Drawn(t *Throttle, f func() float64) { t.draw = f }

// UnaryRestore is the interceptor that gives calls back the refusals that gRPC lost.
var UnaryRestore = unaryRestore

// UnaryOf returns the interceptor of a server with several gates.
func UnaryOf(c ServerConfig) grpc.UnaryServerInterceptor {
	return c.router(unaryServer, c.Gate, serverConfig(nil)).unary
}
