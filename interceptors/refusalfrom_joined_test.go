package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
)

// Among several errors the refusal is found, with its delay, wherever it stands. One of this
// process wins over one from the wire.
func TestRefusalFromSeveralErrors(t *testing.T) {
	remote := withDetails(t, codes.Unavailable, `weir: the server is full (gate "far"): retry in 80ms`,
		&errdetails.ErrorInfo{Reason: "QUEUE_FULL", Domain: "weir", Metadata: map[string]string{"gate": "far"}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(80 * time.Millisecond)})
	far := interceptors.Refusal{Reason: "queue_full", Gate: "far", Remote: true, RetryAfter: 80 * time.Millisecond}
	local := &admit.Refusal{Reason: admit.Draining, Gate: "near"}
	near := interceptors.Refusal{Reason: "draining", Gate: "near"}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	g := strict(t, 1)
	fill(t, g)
	_, left := interceptors.UnaryServer(g)(ended, nil, workInfo, succeed)
	other := status.Error(codes.NotFound, "no such order")
	for name, c := range map[string]struct {
		err  error
		want interceptors.Refusal
	}{
		"first":                          {errors.Join(remote, other), far},
		"last":                           {errors.Join(other, remote), far},
		"by two verbs":                   {fmt.Errorf("a: %w, b: %w", other, remote), far},
		"deep":                           {errors.Join(errors.New("x"), fmt.Errorf("y: %w", errors.Join(other, fmt.Errorf("z: %w", remote)))), far},
		"after a call that was left":     {errors.Join(left, remote), far},
		"after another that was left":    {errors.Join(left, local), near},
		"of this process and of the far": {errors.Join(remote, local), near},
	} {
		if got, ok := interceptors.RefusalFrom(c.err); !ok || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, ok, c.want)
		}
	}
	for name, err := range map[string]error{
		"two others": errors.Join(other, left), "none": errors.Join(errors.New("x")),
	} {
		if got, ok := interceptors.RefusalFrom(err); ok {
			t.Errorf("%s: got %+v, want none", name, got)
		}
	}
}
