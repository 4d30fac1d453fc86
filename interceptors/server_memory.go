package interceptors

import (
	"math"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/internal/check"
)

// sizes returns the sizes for the budget of a configuration, with room for its gates.
func (c *ServerConfig) sizes() memory.Sizes {
	s, err := memory.SizesFor(c.Memory)
	if err != nil { // validate has found that
		return memory.Sizes{}
	}
	s.MaxConcurrentStreams = max(s.MaxConcurrentStreams, uint32(min(c.needed()+spareStreams, math.MaxInt32)))
	if c.MaxConcurrentStreams > 0 {
		s.MaxConcurrentStreams = c.MaxConcurrentStreams
	}
	return s
}

// remember returns the options for Memory and Bytes. hold is that of WithHoldUntilSent.
func (c *ServerConfig) remember(hold time.Duration) (opts []grpc.ServerOption) {
	if c.Memory > 0 {
		s := c.sizes()
		if c.OnSizes != nil {
			c.OnSizes(s)
		}
		opts = s.ServerOptions()
	}
	bytes := c.Bytes
	if bytes == nil && hold > 0 {
		bytes, _ = memory.NewBytes(math.MaxInt64) // the limit is right
	}
	if bytes != nil {
		opts = append(opts, bytes.ServerOptions()...)
	}
	return opts
}

// validateMemory checks Memory and Bytes.
func (c *ServerConfig) validateMemory(bad *check.Errors) {
	if c.Memory != 0 {
		_, err := memory.SizesFor(c.Memory)
		bad.From("server: Memory", err, memory.ErrConfig)
	}
	bad.That(c.Bytes == nil || c.Bytes.Stats().Limit > 0, "server: Bytes: got a zero Bytes, want one from memory.NewBytes")
}
