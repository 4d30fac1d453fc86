package interceptors

import (
	"time"

	"google.golang.org/grpc"
)

// Families counts the gates that are remembered.
func Families() int {
	n := 0
	families.Range(func(any, any) bool { n++; return true })
	return n
}

// TableSize is how many circuits, or targets, are told apart.
const TableSize = tableSize

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

// Hold has b hold n messages of one byte, instead of those that it held.
func Hold(b *Bytes, n int64) *Bytes {
	b.add(n-b.messages.Load(), n-b.used.Load())
	return b
}
