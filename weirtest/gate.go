package weirtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/inside"
)

// gateFuncs are the functions of gates that package admit does not offer to programs.
//
//nolint:forcetypeassert // package admit sets it, and is initialized before this one
var gateFuncs = inside.Admit.(inside.Gates[*admit.Gate, admit.Call, admit.Class, admit.Reason, admit.Option])

// Always is the number of refusals for a gate that refuses every call.
const Always = -1

// NewGate returns a gate that refuses the first n calls for a reason, however many permits
// are free. It treats all other calls as its options say. With [Always], or any negative n,
// it refuses every call. Concurrent calls are counted one by one, so exactly n are refused.
// A gate in a dry run refuses none.
//
// Refusals have the delay that the gate asks for. That is 10 to 20 ms for admit.Draining,
// and otherwise 50 to 150 ms while the gate is new.
//
// It returns the errors of admit.New, and an error if the reason does not exist.
func NewGate(why admit.Reason, n int, opts ...admit.Option) (*admit.Gate, error) {
	if strings.HasPrefix(why.String(), "reason(") { // as String writes an unknown reason
		return nil, fmt.Errorf("weirtest: reason: got %v, want one of package admit", why)
	}
	var refused atomic.Int64
	refuse := gateFuncs.RefuseIf(func() (admit.Reason, bool) { return why, n < 0 || refused.Add(1) <= int64(n) })
	return admit.New(append(slices.Clip(opts), refuse)...)
}

// Error returns the error that a client gets from the wire when a gate of a server refuses
// its call for a reason. Gate is the gate's name. If the reason does not exist or the name
// is empty, it returns an error that says so instead.
func Error(why admit.Reason, gate string) error {
	g, err := NewGate(why, Always, admit.WithName(gate))
	if err != nil {
		return err
	}
	_, err = interceptors.UnaryServer(g)(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/weirtest/Error"}, nil)
	return status.FromProto(status.Convert(err).Proto()).Err()
}
