package memory

import (
	"fmt"
	"math"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/check"
)

// Sizes holds the limits of a server that follow from its memory budget. [SizesFor] has the
// arithmetic.
type Sizes struct {
	// Memory is the budget, in bytes.
	Memory int64
	// MaxRecvMsgSize is the largest request, in bytes.
	MaxRecvMsgSize int
	// MaxConcurrentStreams bounds the calls and streams of a connection.
	MaxConcurrentStreams uint32
	// StreamWindow bounds the bytes that arrive on a stream before its handler reads them.
	// ConnWindow bounds the bytes in transit on a connection.
	StreamWindow, ConnWindow int32
	// Bytes is a limit for [NewBytes].
	Bytes int64
}

const (
	leastMemory = 16 << 20
	mostMessage = 4 << 20 // gRPC's default
	mostWindow  = 1 << 20
	leastWindow = 64 << 10 // gRPC takes no less
	mostStreams = 1000
	// streamMemory is the assumed memory of an open stream and its handler.
	streamMemory = 256 << 10
)

// SizesFor returns the sizes for a memory budget in bytes, at least 16 MiB. The error wraps
// ErrConfig.
//
//	MaxRecvMsgSize        memory / 64, at most gRPC's default of 4 MiB
//	StreamWindow          memory / 1024, from 64 KiB to 1 MiB, and fixed; 256 streams with
//	                      unread data hold a quarter of the memory
//	ConnWindow            4 * StreamWindow; it bounds no memory, because gRPC updates it
//	                      when bytes arrive
//	MaxConcurrentStreams  memory / 256 KiB, from 100 to 1000
//	Bytes                 memory / 4; encoded and decoded messages take half of the memory
//
// A quarter is left for the program and for garbage. Fixed windows slow down large messages
// over long distances. A window of 256 KiB and a round trip of 20 ms allow 13 MB/s for each
// stream. Without fixed windows, gRPC's grow up to 16 MiB for each stream.
func SizesFor(memory int64) (Sizes, error) {
	var bad check.Errors
	if bad.That(memory >= leastMemory, "got %d bytes, want at least %d", memory, leastMemory); len(bad) > 0 {
		return Sizes{}, bad.Err(ErrConfig)
	}
	window := min(max(memory/1024, leastWindow), mostWindow)
	return Sizes{
		Memory:               memory,
		MaxRecvMsgSize:       int(min(memory/64, mostMessage)),
		MaxConcurrentStreams: uint32(min(max(memory/streamMemory, 100), mostStreams)),
		StreamWindow:         int32(window),
		ConnWindow:           int32(4 * window),
		Bytes:                memory / 4,
	}, nil
}

// ServerOptions returns options with the sizes.
func (s Sizes) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.MaxRecvMsgSize),
		grpc.MaxConcurrentStreams(s.MaxConcurrentStreams),
		grpc.StaticStreamWindowSize(s.StreamWindow),
		grpc.StaticConnWindowSize(s.ConnWindow),
	}
}

// String returns the sizes in words, for a log.
func (s Sizes) String() string {
	return fmt.Sprintf("memory %s: requests up to %s, %d streams a connection, windows of %s a stream and %s a connection, %s of messages",
		size(s.Memory), size(int64(s.MaxRecvMsgSize)), s.MaxConcurrentStreams,
		size(int64(s.StreamWindow)), size(int64(s.ConnWindow)), size(s.Bytes))
}

// size formats a number of bytes with a unit.
func size(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%v %s", math.Round(f*10)/10, units[i])
}
