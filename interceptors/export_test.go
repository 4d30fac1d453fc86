package interceptors

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

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

// Hold makes b hold n messages of one byte each.
func Hold(b *Bytes, n int64) *Bytes {
	b.messages.Store(n)
	b.counts.Store(n)
	return b
}

// Sending returns how many messages of b are between encoding and sending.
func Sending(b *Bytes) int {
	b.sending.mu.Lock()
	defer b.sending.mu.Unlock()
	return len(b.sending.parcels)
}

// Counting returns the codec that counts responses, around a registered codec.
func Counting(b *Bytes, codec string) encoding.CodecV2 { return departures{codecOf(codec), b} }
