package interceptors_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// retries is a service config with a backoff that no test mistakes for a pushback.
func retries(code string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "1000s", "maxBackoff": "1000s", "backoffMultiplier": 1,
		"retryableStatusCodes": ["` + code + `"]}}]}`)
}

// attempts records when calls come to the server, and what they are told.
type attempts struct {
	at      []time.Time
	asked   []time.Duration
	refused func(n int) // called after each refusal, if not nil
}

func (a *attempts) record(err error) {
	if r, ok := errors.AsType[*admit.Refusal](err); ok {
		a.asked = append(a.asked, r.RetryAfter)
		if a.refused != nil {
			a.refused(len(a.asked))
		}
	}
}

func (a *attempts) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	a.at = append(a.at, time.Now())
	resp, err := h(ctx, req)
	a.record(err)
	return resp, err
}

func (a *attempts) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	a.at = append(a.at, time.Now())
	err := h(srv, ss)
	a.record(err)
	return err
}

// wantObeyed checks that each further attempt came exactly when it was told to.
func (a *attempts) wantObeyed(t *testing.T, n int) {
	t.Helper()
	if len(a.at) != n || len(a.asked) < n-1 {
		t.Fatalf("attempts: got %d (and %d refusals), want %d", len(a.at), len(a.asked), n)
	}
	for i := 1; i < n; i++ {
		if got, want := a.at[i].Sub(a.at[i-1]), a.asked[i-1]; got != want {
			t.Errorf("attempt %d: came %v after the last, want %v, the delay in its refusal", i+1, got, want)
		}
	}
}

// A grpc-go client comes back exactly when the refusal says, neither sooner nor
// with its own backoff: unary calls, streams, and streams through our client's
// interceptor, which must not keep gRPC from retrying.
func TestRetryObeysPushback(t *testing.T) {
	for name, call := range map[string]func(context.Context, *rig) error{
		"unary":  func(ctx context.Context, r *rig) error { _, err := r.Work(ctx, &demopb.WorkRequest{}); return err },
		"stream": drainStream,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outer, g := newGate(t), strict(t, 1)
				release := hold(t, g)
				a := &attempts{refused: func(n int) {
					if n == 3 { // let the fourth attempt in
						release()
					}
				}}
				r := start(t, &service{OnExchange: func(demopb.DemoService_ExchangeServer) error { return nil }}, []grpc.ServerOption{
					grpc.ChainUnaryInterceptor(interceptors.UnaryServer(outer), a.unary, interceptors.UnaryServer(g)),
					grpc.ChainStreamInterceptor(interceptors.StreamServer(outer), a.stream, interceptors.StreamServer(g)),
				}, retries("UNAVAILABLE"), grpc.WithStreamInterceptor(interceptors.StreamClient(newGate(t))))
				if err := call(t.Context(), r); err != nil {
					t.Errorf("fourth attempt: got %v, want nil", err)
				}
				a.wantObeyed(t, 4)
			})
		})
	}
}

// When a client does not come back.
func TestNoRetry(t *testing.T) {
	add := func(ctx context.Context) error { return grpc.SetTrailer(ctx, metadata.Pairs(pushback, "5")) }
	for _, c := range []struct {
		name   string
		code   string // that the client retries
		before func(context.Context) error
		after  func(context.Context) error
		option interceptors.ServerOption
		want   int
	}{
		{name: "as it should be", code: "UNAVAILABLE", want: 4},
		{name: "another code in the policy", code: "RESOURCE_EXHAUSTED", want: 1},
		{
			name: "that code, overridden", code: "RESOURCE_EXHAUSTED", want: 4,
			option: interceptors.WithCode(admit.QueueFull, codes.ResourceExhausted),
		},
		{name: "SetHeader further out", code: "UNAVAILABLE", want: 1, before: func(ctx context.Context) error {
			return grpc.SetHeader(ctx, metadata.Pairs("request-id", "1"))
		}},
		{name: "SendHeader further out", code: "UNAVAILABLE", want: 1, before: func(ctx context.Context) error {
			return grpc.SendHeader(ctx, metadata.MD{})
		}},
		{name: "a second value further out", code: "UNAVAILABLE", want: 1, after: add},
		{name: "a first value further out", code: "UNAVAILABLE", want: 4, before: add},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, a := strict(t, 1), &attempts{}
				fill(t, g)
				meddle := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
					if c.before != nil {
						if err := c.before(ctx); err != nil {
							t.Error(err)
						}
					}
					resp, err := h(ctx, req)
					if c.after != nil {
						if err := c.after(ctx); err != nil {
							t.Error(err)
						}
					}
					return resp, err
				}
				var opts []interceptors.ServerOption
				if c.option != nil {
					opts = append(opts, c.option)
				}
				r := start(t, &service{}, unaryServers(a.unary, meddle, interceptors.UnaryServer(g, opts...)), retries(c.code))
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				if err == nil || len(a.at) != c.want {
					t.Errorf("attempts: got %d and %v, want %d and an error", len(a.at), err, c.want)
				}
			})
		})
	}
}

// What a tap says has no delay: the client's own backoff applies.
func TestRetryAfterTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, a := strict(t, 1), &attempts{}
		release := hold(t, g)
		r := start(t, &service{}, append(unaryServers(a.unary), grpc.InTapHandle(interceptors.Tap(g))), retries("UNAVAILABLE"))
		time.AfterFunc(10*time.Second, release)
		began := time.Now()
		_, err := r.Work(t.Context(), &demopb.WorkRequest{})
		if got := time.Since(began); err != nil || got < 500*time.Second || len(a.at) != 1 {
			t.Errorf("got %v after %v and %d attempts at the interceptors, want nil after about 1000s and 1", err, got, len(a.at))
		}
	})
}
