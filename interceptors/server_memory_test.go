package interceptors_test

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/internal/grpctest"
)

func TestServerMemoryMistakes(t *testing.T) {
	_, err := interceptors.Server(interceptors.ServerConfig{Gate: newGate(t), Memory: 1 << 20, Bytes: new(memory.Bytes)})
	wantConfigError(t, err, "server: Memory: got 1048576 bytes, want at least 16777216", "server: Bytes: got a zero Bytes, want one from memory.NewBytes")
}

// OnSizes gets the sizes for the budget, with room for the calls of the gates.
func TestServerOnSizes(t *testing.T) {
	var got memory.Sizes
	gate := newGate(t, admit.WithLimit(fixed(3000)), admit.WithQueue(admit.QueueConfig{Capacity: 500}))
	if _, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Memory: 64 << 20, OnSizes: func(s memory.Sizes) { got = s }}); err != nil {
		t.Fatal(err)
	}
	if want := uint32(3000 + 500 + 100); got.MaxConcurrentStreams != want || got.MaxRecvMsgSize != 1<<20 {
		t.Errorf("got %v, want room for what the gate lets run and wait (%d), and 1 MiB", got, want)
	}
}

// A request that is larger than the budget allows is refused by gRPC.
func TestMemoryBoundsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts, err := interceptors.Server(interceptors.ServerConfig{Gate: newGate(t), Memory: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		p := grpctest.Start(t, calltest.ServeBlobs(func(context.Context, *calltest.Blob) (*calltest.Blob, error) { return &calltest.Blob{}, nil }), grpctest.ServerOptions(opts...))
		for size, want := range map[int]codes.Code{1<<20 - 100: codes.OK, 1<<20 + 100: codes.ResourceExhausted} {
			wantCode(t, p.Conn.Invoke(t.Context(), calltest.Blobs, &calltest.Blob{Value: make([]byte, size)}, new(calltest.Blob)), want)
		}
	})
}
