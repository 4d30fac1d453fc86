package streamcredit_test

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/grpctest"
)

// A valve is in the transport of both ends of a stream. While it is shut, the transport takes no
// message of that end.
type valve struct {
	mu    sync.Mutex // guards the fields below
	stuck [2]chan struct{}
}

const (
	clientEnd = iota
	serverEnd
)

// shut makes the writes of an end wait, and reports whether they did not before.
func (v *valve) shut(end int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stuck[end] != nil {
		return false
	}
	v.stuck[end] = make(chan struct{})
	return true
}

// open lets the writes of an end go on.
func (v *valve) open(end int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stuck[end] != nil {
		close(v.stuck[end])
		v.stuck[end] = nil
	}
}

func (v *valve) isShut(end int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stuck[end] != nil
}

func (v *valve) openBoth() {
	v.open(clientEnd)
	v.open(serverEnd)
}

func (v *valve) isShutAnywhere() bool { return v.isShut(clientEnd) || v.isShut(serverEnd) }

// pass waits while the valve is shut, like a write that the transport does not take.
func (v *valve) pass(ctx context.Context, end int) error {
	v.mu.Lock()
	stuck := v.stuck[end]
	v.mu.Unlock()
	if stuck == nil {
		return nil
	}
	select {
	case <-stuck:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

type (
	valvedServer struct {
		grpc.ServerStream

		valve *valve
	}
	valvedClient struct {
		grpc.ClientStream

		valve *valve
	}
)

func (s valvedServer) SendMsg(m any) error {
	if err := s.valve.pass(s.Context(), serverEnd); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s valvedClient) SendMsg(m any) error {
	if s.valve.pass(s.Context(), clientEnd) != nil {
		return s.ClientStream.SendMsg(m) // has ended, and says so
	}
	return s.ClientStream.SendMsg(m)
}

// options are those of a connection with the valve.
func (v *valve) options() []grpctest.Option {
	return wrapped(
		func(cs grpc.ClientStream) grpc.ClientStream { return valvedClient{cs, v} },
		func(ss grpc.ServerStream) grpc.ServerStream { return valvedServer{ss, v} },
	)
}
