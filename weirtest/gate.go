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

// Always is how often a gate refuses that never stops.
const Always = -1

// NewGate returns a gate that refuses the first n calls for a reason, however many permits
// are free, and treats the others as its options say. With [Always], or any negative n, it
// refuses every call. Calls that come at once are counted one by one, so exactly n are
// refused. A gate in a dry run refuses none.
//
// The delay of a refusal is what the gate asks for in its state: 10 to 20 ms for
// admit.Draining, otherwise 50 to 150 ms as long as the gate is new.
//
// It returns the errors of admit.New, and an error if there is no such reason.
func NewGate(why admit.Reason, n int, opts ...admit.Option) (*admit.Gate, error) {
	if strings.HasPrefix(why.String(), "reason(") { // which is how it writes those that it does not know
		return nil, fmt.Errorf("weirtest: reason: got %v, want one of package admit", why)
	}
	var refused atomic.Int64
	refuse := gateFuncs.RefuseIf(func() (admit.Reason, bool) { return why, n < 0 || refused.Add(1) <= int64(n) })
	return admit.New(append(slices.Clip(opts), refuse)...)
}

// Error returns the error that a client gets from a server whose gate of that name
// refuses a call for a reason, as it comes from the wire. If there is no such reason, or
// the name is empty, it is another error, which says so.
func Error(why admit.Reason, gate string) error {
	g, err := NewGate(why, Always, admit.WithName(gate))
	if err != nil {
		return err
	}
	_, err = interceptors.UnaryServer(g)(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/weirtest/Error"}, nil)
	return status.FromProto(status.Convert(err).Proto()).Err()
}
