package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/weirtest"
)

// refused returns the error of a server that asks for a delay.
func refused(code codes.Code, delay time.Duration) error {
	return detailed(code, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
}

func detailed(code codes.Code, details ...protoadapt.MessageV1) error {
	st, err := status.New(code, "no").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// opened returns the error of a client whose circuit is open.
func opened(t *testing.T) (err error) {
	t.Helper()
	b, err := breaker.New(breaker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		err = breaker.Unary(b)(t.Context(), "/s/m", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			return status.Error(codes.Unavailable, "")
		})
	}
	if !errors.Is(err, breaker.ErrOpen) {
		t.Fatalf("breaker: got %v, want ErrOpen", err)
	}
	return err
}

// throttled returns the error of a client that holds back.
func throttled(t *testing.T) error {
	t.Helper()
	th, err := throttle.New(throttle.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100_000 {
		err = throttle.Unary(th)(t.Context(), "/s/m", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			return weirtest.Error(admit.QueueFull, "g")
		})
		if errors.Is(err, throttle.ErrThrottled) {
			return err
		}
	}
	t.Fatal("throttle: got no refusal")
	return nil
}

func TestFailureOf(t *testing.T) {
	const none = 0
	for name, c := range map[string]struct {
		err   error
		kind  broker.FailureKind
		delay time.Duration // -1: any that is positive
	}{
		"plain":                    {errBroken, broker.Failed, none},
		"reject":                   {broker.Reject(errBroken), broker.Rejected, none},
		"reject, wrapped":          {fmt.Errorf("x: %w", broker.Reject(errBroken)), broker.Rejected, none},
		"reject of a refusal":      {broker.Reject(status.Error(codes.Unavailable, "")), broker.Rejected, none},
		"UNAVAILABLE":              {status.Error(codes.Unavailable, ""), broker.Refused, none},
		"UNAVAILABLE, wrapped":     {fmt.Errorf("x: %w", refused(codes.Unavailable, time.Second)), broker.Refused, time.Second},
		"RESOURCE_EXHAUSTED":       {refused(codes.ResourceExhausted, 3*time.Second), broker.Refused, 3 * time.Second},
		"delay below zero":         {refused(codes.Unavailable, -time.Second), broker.Refused, none},
		"delay of another code":    {refused(codes.Internal, time.Second), broker.Failed, none},
		"too large":                {status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), broker.Failed, none},
		"INVALID_ARGUMENT":         {status.Error(codes.InvalidArgument, ""), broker.Failed, none},
		"DEADLINE_EXCEEDED":        {status.Error(codes.DeadlineExceeded, ""), broker.Failed, none},
		"a deadline":               {context.DeadlineExceeded, broker.Failed, none},
		"a gate":                   {&admit.Refusal{Reason: admit.QueueFull, RetryAfter: time.Second}, broker.Refused, time.Second},
		"a server's gate":          {weirtest.Error(admit.QueueFull, "g"), broker.Refused, -1},
		"a server's gate, a quota": {weirtest.Error(admit.OverQuota, "g"), broker.Refused, -1},
		"weir's DEADLINE_EXCEEDED": {detailed(codes.DeadlineExceeded, &errdetails.ErrorInfo{Domain: "weir", Reason: "X"}), broker.Refused, none},
		"other DEADLINE_EXCEEDED":  {detailed(codes.DeadlineExceeded, &errdetails.ErrorInfo{Domain: "example.com", Reason: "X"}), broker.Failed, none},
		"breaker":                  {fmt.Errorf("x: %w", opened(t)), broker.Refused, -1},
		"throttle":                 {throttled(t), broker.Refused, -1},
		"a delay of a year":        {refused(codes.Unavailable, 365*24*time.Hour), broker.Refused, time.Hour},
		"no reason of weir":        {detailed(codes.Internal, &errdetails.ErrorInfo{Domain: "weir", Reason: "not one"}), broker.Failed, none},
		"many details": {
			detailed(codes.Unavailable, append([]protoadapt.MessageV1{&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}},
				slices.Repeat([]protoadapt.MessageV1{&errdetails.BadRequest{}}, 20)...)...), broker.Refused, time.Second,
		},
		"joined with another status": {
			fmt.Errorf("x: %w", errors.Join(status.Error(codes.NotFound, ""), refused(codes.Unavailable, time.Second))), broker.Refused, time.Second,
		},
		"two other statuses":        {errors.Join(status.Error(codes.NotFound, ""), status.Error(codes.Internal, "")), broker.Failed, none},
		"joined with another error": {errors.Join(errBroken, status.Error(codes.Unavailable, "")), broker.Refused, none},
	} {
		t.Run(name, func(t *testing.T) {
			got := broker.FailureOf(c.err)
			if ok := got.RetryAfter == c.delay || c.delay < 0 && got.RetryAfter > 0; got.Kind != c.kind || !ok {
				t.Errorf("FailureOf(%v): got %+v, want kind %d and delay %v", c.err, got, c.kind, c.delay)
			}
		})
	}
	if broker.Reject(nil) != nil {
		t.Error("Reject(nil): got an error, want nil")
	}
	if err := broker.Reject(errBroken); !errors.Is(err, errBroken) || err.Error() != "broken" {
		t.Errorf("Reject: got %v, want the text and the identity of the error", err)
	}
}
