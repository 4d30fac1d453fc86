package interceptors_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
)

// A failing is what fails to say who calls.
type failing struct {
	secure bool // it wants TLS
	err    error
}

func (f failing) RequireTransportSecurity() bool { return f.secure }
func (f failing) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, f.err
}

// Errors that gRPC itself makes of what it was given, and those that other languages'
// make, say nothing about the server's load or health.
func TestErrorsOfGRPC(t *testing.T) {
	large := strings.Repeat("x", 20_000)
	expired := failing{err: errors.New("the token endpoint is down")}
	refused := failing{err: status.Error(codes.NotFound, "no token")} // with a code that credentials may not use
	for name, c := range map[string]struct {
		req, resp, text string // text is what the server itself says
		metadata        []string
		server          []grpc.ServerOption
		dial            []grpc.DialOption
		call            []grpc.CallOption
		want            codes.Code
	}{
		"response too large":             {resp: large, call: calls(grpc.MaxCallRecvMsgSize(1000)), want: codes.ResourceExhausted},
		"response inflates to too much":  {resp: large, call: calls(grpc.MaxCallRecvMsgSize(1000), grpc.UseCompressor(gzip.Name)), want: codes.ResourceExhausted},
		"request too large":              {req: large, call: calls(grpc.MaxCallSendMsgSize(1000)), want: codes.ResourceExhausted},
		"request too large there":        {req: large, server: []grpc.ServerOption{grpc.MaxRecvMsgSize(1000)}, want: codes.ResourceExhausted},
		"too large for C-core":           {text: "Received message larger than max (5308389 vs. 4194304)", want: codes.ResourceExhausted},
		"too large for grpc-java":        {text: "gRPC message exceeds maximum size 4194304: 20007194", want: codes.ResourceExhausted},
		"a string that is not UTF-8":     {req: "\xff", want: codes.Internal},
		"metadata that is not printable": {metadata: []string{"user", "J\u00fcrgen"}, want: codes.Internal},
		"metadata with a bad key":        {metadata: []string{"us er", "x"}, want: codes.Internal},
		"metadata without a key":         {metadata: []string{"", "x"}, want: codes.Internal},
		"too much metadata":              {metadata: []string{"user", large}, server: []grpc.ServerOption{grpc.MaxHeaderListSize(2000)}, want: codes.Internal},
		"no such compressor":             {call: calls(grpc.UseCompressor("none")), want: codes.Internal},
		"no such codec":                  {call: calls(grpc.CallContentSubtype("none")), want: codes.Internal},
		"credentials fail":               {dial: []grpc.DialOption{grpc.WithPerRPCCredentials(expired)}, want: codes.Unauthenticated},
		"credentials with a bad code":    {dial: []grpc.DialOption{grpc.WithPerRPCCredentials(refused)}, want: codes.Internal},
		"a call's credentials fail":      {call: calls(grpc.PerRPCCredentials(expired)), want: codes.Internal},
		"credentials for TLS":            {call: calls(grpc.PerRPCCredentials(failing{secure: true})), want: codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				says := func() error {
					if c.text != "" {
						return status.Error(c.want, c.text)
					}
					return nil
				}
				svc := &service{
					OnWork: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
						return &demopb.WorkResponse{Message: c.resp}, says()
					},
					OnExchange: func(s demopb.DemoService_ExchangeServer) error {
						if _, err := s.Recv(); err != nil {
							return err
						}
						if err := says(); err != nil {
							return err
						}
						return s.Send(&demopb.ExchangeResponse{Text: c.resp})
					},
				}
				all := interceptors.ClientConfig{
					Throttle: newThrottle(t, throttle.Config{}), Gate: newGate(t), Breaker: newBreaker(t, breaker.Config{}),
				}
				r := start(t, svc, c.server, append(c.dial, standBack(t, all)...)...)
				ctx := metadata.AppendToOutgoingContext(t.Context(), c.metadata...)
				for range 30 {
					_, err := r.Work(ctx, &demopb.WorkRequest{Name: c.req}, c.call...)
					wantCode(t, err, c.want)
					s, err := r.Exchange(ctx, c.call...)
					if err == nil {
						err = s.Send(&demopb.ExchangeRequest{Text: c.req})
					}
					if err == nil || errors.Is(err, io.EOF) {
						_, err = s.Recv()
					}
					wantCode(t, err, c.want)
				}
				for _, s := range all.Breaker.Stats() {
					if s.State != breaker.Closed || s.Failed != 0 || s.Allowed != 30 {
						t.Errorf("circuit: got %+v, want it closed, 30 allowed, and none failed", s)
					}
				}
				for _, s := range all.Throttle.Stats() {
					if s.Accepted+s.Rejected != 0 || s.Allowed != 30 {
						t.Errorf("throttle: got %+v, want 30 allowed, and none counted", s)
					}
				}
				if s := all.Gate.Stats(); s.Ended[admit.Overload] != 0 || s.Ended[admit.Ignored] != 30 {
					t.Errorf("limit: got %v ended, want 30 ignored", s.Ended)
				}
			})
		})
	}
}

func calls(o ...grpc.CallOption) []grpc.CallOption { return o }

// Probes that never left the client do not close a circuit.
func TestFailingCredentialsCloseNoCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		sick := does(func(context.Context) error { return status.Error(codes.Unavailable, "down") })
		r := start(t, sick, nil, grpc.WithUnaryInterceptor(breaker.Unary(b)))
		for range 20 {
			_, _ = r.Work(t.Context(), &demopb.WorkRequest{})
		}
		wantState(t, b, breaker.Open)
		time.Sleep(8 * time.Second) // longer than a circuit stays open, with its jitter
		for range 3 {
			_, err := r.Work(t.Context(), &demopb.WorkRequest{}, grpc.PerRPCCredentials(failing{secure: true}))
			wantCode(t, err, codes.Unauthenticated)
		}
		wantState(t, b, breaker.HalfOpen)
	})
}
