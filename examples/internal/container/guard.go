package container

import (
	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/pressure"
)

// A guard is the part of a server that weir adds.
type guard struct {
	monitor *pressure.Monitor
	gate    *admit.Gate
	opts    []grpc.ServerOption
}

// newGuard guards a server of so much memory, as docs/memory.md has it.
func newGuard(c Config) (*guard, error) {
	monitor, err := pressure.New()
	if err != nil {
		return nil, err
	}
	sizes, err := memory.SizesFor(c.Memory)
	if err != nil {
		return nil, err
	}
	bytes, err := memory.NewBytes(sizes.Bytes)
	if err != nil {
		return nil, err
	}
	gate, err := admit.New(admit.WithPressure(monitor, bytes),
		// Calls that hang must not have all permits: a share comes back only when they end.
		admit.WithClassConfig(admit.Default, admit.ClassConfig{Max: 0.75}))
	if err != nil {
		return nil, err
	}
	guards := interceptors.ServerConfig{Gate: gate, Memory: c.Memory, Bytes: bytes, Tap: true}
	if c.Trouble == Streams {
		guards.Tap = false
		if guards.Streams, err = admit.New(admit.WithName("streams"), admit.WithFixedLimit(300),
			admit.WithPressure(monitor, bytes)); err != nil {
			return nil, err
		}
	}
	opts, err := interceptors.Server(guards,
		interceptors.WithClassFor(admit.Critical, interceptors.Methods(vital)),
		interceptors.WithClassFor(admit.Background, interceptors.Methods(warm)))
	return &guard{monitor, gate, opts}, err
}
