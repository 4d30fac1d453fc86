package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

// texts holds what refusals say, of a gate with the name "default".
var texts = map[admit.Reason]struct{ server, client string }{
	admit.QueueFull: {
		`weir: the server is full (gate "default"): retry in `,
		`weir: this client's limit for "default" is used up`,
	},
	admit.Evicted: {
		`weir: the server is full and another call took the place of this one (gate "default"): retry in `,
		`weir: this client's limit for "default" is used up, and another call took the place of this one`,
	},
	admit.DeadlineTooClose: {
		`weir: the server is full and would not answer before the call's deadline (gate "default"): retry in `,
		`weir: this client's limit for "default" is used up until after the call's deadline`,
	},
	admit.WaitedTooLong: {
		`weir: the server is full and the call has waited for too long (gate "default"): retry in `,
		`weir: this client's limit for "default" is used up, and the call has waited for too long`,
	},
	admit.Draining: {
		`weir: the server is shutting down (gate "default"): another server may take the call`,
		`weir: this client is shutting down its calls for "default"`,
	},
	admit.OverShare: {
		`weir: the caller's share of the server is used up (gate "default"): retry in `,
		`weir: the caller's share of this client's limit for "default" is used up`,
	},
	admit.OverQuota: {
		`weir: the caller's quota is used up (gate "default"): retry in `,
		`weir: the caller's quota at this client's limit for "default" is used up`,
	},
	admit.TooManyOpen: {
		`weir: too many streams are open on the server (gate "default"): retry in `,
		`weir: this client has too many streams open for "default"`,
	},
	admit.MemoryPressure: {
		`weir: the server is short of memory (gate "default"): retry in `,
		`weir: this client's limit for "default" is closed: its process is short of memory`,
	},
	admit.GCPressure: {
		`weir: the server is short of memory and busy with collecting garbage (gate "default"): retry in `,
		`weir: this client's limit for "default" is closed: its process is busy with collecting garbage`,
	},
	admit.ProcessorPressure: {
		`weir: the server is short of processors (gate "default"): retry in `,
		`weir: this client's limit for "default" is closed: its process is short of processors`,
	},
	admit.UnderPressure: {
		`weir: the server is under pressure (gate "default"): retry in `,
		`weir: this client's limit for "default" is closed: its process is under pressure`,
	},
}

// wantFrom checks what RefusalFrom says of an error, and of one that wraps it.
func wantFrom(t *testing.T, err error, want interceptors.Refusal, delay func(time.Duration) bool) {
	t.Helper()
	for _, err := range []error{err, fmt.Errorf("buy: %w", err), errors.Join(errors.New("other"), err)} {
		got, ok := interceptors.RefusalFrom(err)
		if !ok || !delay(got.RetryAfter) {
			t.Errorf("RefusalFrom(%v): got %+v, %v, want a refusal with a delay that fits", err, got, ok)
		}
		if got.RetryAfter = 0; got != want {
			t.Errorf("RefusalFrom(%v): got %+v (and a delay), want %+v", err, got, want)
		}
	}
}

func short(d time.Duration) bool { return d >= 10*time.Millisecond && d <= time.Second }
func none(d time.Duration) bool  { return d == 0 }
func some(d time.Duration) bool  { return d > 0 }

// Each side finds in the error what the gate said; and people read who refused, and why.
func TestRefusalFromGates(t *testing.T) {
	for _, c := range refusing {
		call := func(t *testing.T, f func(context.Context) error) error {
			if c.deadline == 0 {
				return f(t.Context())
			}
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			return f(ctx)
		}
		want := interceptors.Refusal{Reason: c.why.String(), Gate: "default"}
		t.Run("server, "+c.why.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var inside error
				r := start(t, &service{}, unaryServers(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (_ any, err error) {
					_, inside = h(ctx, req)
					return nil, inside
				}, interceptors.UnaryServer(c.gate(t))))
				err := call(t, func(ctx context.Context) error { _, err := r.Work(ctx, &demopb.WorkRequest{}); return err })
				wantFrom(t, inside, want, short)
				wantText(t, inside, texts[c.why].server)
				want := want
				want.Remote = true
				wantFrom(t, err, want, short)
				wantText(t, err, texts[c.why].server)
			})
		})
		t.Run("client, "+c.why.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := interceptors.UnaryClient(c.gate(t))
				err := call(t, func(ctx context.Context) error { return i(ctx, work, nil, nil, nil, nil) })
				wantFrom(t, err, want, short)
				if got := status.Convert(err).Message(); got != texts[c.why].client {
					t.Errorf("text: got %q, want %q", got, texts[c.why].client)
				}
			})
		})
	}
}

// A refusal is still one when gRPC has used up its retries.
func TestRefusalFromRetriedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		fill(t, g)
		var attempts atomic.Int64
		count := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			attempts.Add(1)
			return h(ctx, req)
		}
		r := start(t, &service{}, unaryServers(count, interceptors.UnaryServer(g)), policy(t, retry.Config{}))
		_, err := r.Work(t.Context(), &demopb.WorkRequest{})
		if got := attempts.Load(); got != 3 {
			t.Errorf("attempts: got %d and %v, want 3", got, err)
		}
		wantFrom(t, err, interceptors.Refusal{Reason: "queue_full", Gate: "default", Remote: true}, short)
	})
}

// The gate itself, and what has no gate.
func TestRefusalFromOthers(t *testing.T) {
	g := newGate(t, admit.WithName("write"))
	g.Drain()
	_, err := g.Acquire(t.Context(), admit.Call{})
	wantFrom(t, err, interceptors.Refusal{Reason: "draining", Gate: "write"}, short)
	wantFrom(t, &admit.Refusal{Reason: 77, RetryAfter: -1}, interceptors.Refusal{Reason: "reason(77)"}, none)

	_, err = interceptors.Tap(g)(t.Context(), tapInfo(work))
	wantFrom(t, err, interceptors.Refusal{Reason: "draining", Gate: "write", Remote: true}, none)

	throttled := throttle.Unary(newThrottle(t, throttle.Config{}))
	for err = errDown; !errors.Is(err, throttle.ErrThrottled); {
		err = throttled(t.Context(), work, nil, nil, nil, busy)
	}
	wantFrom(t, err, interceptors.Refusal{Reason: "throttled"}, some)
	wantText(t, err, "weir: this client holds back: the server has refused too many of its calls: retry in ")

	broken := breaker.Unary(newBreaker(t, breaker.Config{}))
	for range 100 {
		err = broken(t.Context(), work, nil, nil, nil, busy)
	}
	wantFrom(t, err, interceptors.Refusal{Reason: "circuit_open"}, some)
	wantText(t, err, "weir: this client's breaker is open: too many calls of this method have failed: retry in ")

	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	err = interceptors.UnaryPropagation(0)(late, work, nil, nil, nil, nil)
	wantFrom(t, err, interceptors.Refusal{Reason: "deadline_too_close"}, none)
	wantText(t, err, "weir: this client did not send the call: its deadline is too close")
}

func wantText(t *testing.T, err error, prefix string) {
	t.Helper()
	if got := status.Convert(err).Message(); !strings.HasPrefix(got, prefix) || len(got) > len(prefix)+6 {
		t.Errorf("text: got %q, want %q", got, prefix)
	}
}

func TestRefusalFromNothing(t *testing.T) {
	g := strict(t, 1)
	fill(t, g)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, left := interceptors.UnaryServer(g)(ended, nil, workInfo, succeed)
	info := &errdetails.ErrorInfo{Reason: "QUEUE_FULL", Domain: "example.com"}
	for _, err := range []error{
		nil, errors.New("x"), context.DeadlineExceeded, left,
		status.Error(codes.Unavailable, "full"), status.Error(codes.OK, ""),
		withDetails(t, codes.Unavailable, "", info),
		withDetails(t, codes.Unavailable, "", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}),
		status.Error(codes.Unavailable, `the server is full (gate "a")`),
		status.Error(codes.Unavailable, `weir: the server is full (gate "a"`),
		status.Error(codes.Unavailable, `weir: the server is full (gate a)`),
		status.Error(codes.Unavailable, `weir: the server is full (gate "a") or not`),
		status.Error(codes.Unavailable, strings.Repeat("x", 1<<20)+`weir: the server is full (gate "a")`),
	} {
		if r, ok := interceptors.RefusalFrom(err); ok || r != (interceptors.Refusal{}) {
			t.Errorf("RefusalFrom(%.80v): got %+v, %v, want none", err, r, ok)
		}
	}
}

func withDetails(t *testing.T, c codes.Code, text string, details ...protoadapt.MessageV1) error {
	t.Helper()
	st, err := status.New(c, text).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

// Details from the wire may be anything.
func TestRefusalFromHostileDetails(t *testing.T) {
	is := func(reason, gate string) *errdetails.ErrorInfo {
		return &errdetails.ErrorInfo{Reason: reason, Domain: "weir", Metadata: map[string]string{"gate": gate}}
	}
	after := func(s int64, ns int32) *errdetails.RetryInfo {
		return &errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: s, Nanos: ns}}
	}
	for name, c := range map[string]struct {
		details []protoadapt.MessageV1
		want    interceptors.Refusal
		ok      bool
	}{
		"good":             {[]protoadapt.MessageV1{is("QUEUE_FULL", "a"), after(1, 5e8)}, interceptors.Refusal{Reason: "queue_full", RetryAfter: 1500 * time.Millisecond, Gate: "a"}, true},
		"the other order":  {[]protoadapt.MessageV1{after(1, 5e8), is("QUEUE_FULL", "a")}, interceptors.Refusal{Reason: "queue_full", RetryAfter: 1500 * time.Millisecond, Gate: "a"}, true},
		"of later":         {[]protoadapt.MessageV1{is("NEW_REASON_2", "")}, interceptors.Refusal{Reason: "new_reason_2"}, true},
		"a negative delay": {[]protoadapt.MessageV1{is("DRAINING", ""), after(-5, 0)}, interceptors.Refusal{Reason: "draining"}, true},
		"a huge delay":     {[]protoadapt.MessageV1{is("DRAINING", ""), after(315_576_000_000, 0)}, interceptors.Refusal{Reason: "draining", RetryAfter: time.Hour}, true},
		"no delay at all":  {[]protoadapt.MessageV1{is("DRAINING", ""), after(math.MaxInt64, math.MinInt32)}, interceptors.Refusal{Reason: "draining"}, true},
		"no duration":      {[]protoadapt.MessageV1{is("DRAINING", ""), &errdetails.RetryInfo{}}, interceptors.Refusal{Reason: "draining"}, true},
		"a long name":      {[]protoadapt.MessageV1{is("DRAINING", strings.Repeat("a", 65))}, interceptors.Refusal{Reason: "draining"}, true},
		"a name for a log": {[]protoadapt.MessageV1{is("DRAINING", "a\nERROR b")}, interceptors.Refusal{Reason: "draining"}, true},
		"no reason":        {[]protoadapt.MessageV1{is("", "a")}, interceptors.Refusal{}, false},
		"a strange reason": {[]protoadapt.MessageV1{is("full\n", "a")}, interceptors.Refusal{}, false},
		"a long reason":    {[]protoadapt.MessageV1{is(strings.Repeat("A", 65), "a")}, interceptors.Refusal{}, false},
		"two of them":      {[]protoadapt.MessageV1{is("DRAINING", "a"), is("QUEUE_FULL", "b")}, interceptors.Refusal{Reason: "draining", Gate: "a"}, true},
		"too many":         {append(slicesRepeat(after(1, 0), 16), is("DRAINING", "a")), interceptors.Refusal{}, false},
	} {
		got, ok := interceptors.RefusalFrom(withDetails(t, codes.Unavailable, "", c.details...))
		if c.want.Remote = c.ok; ok != c.ok || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v, %v", name, got, ok, c.want, c.ok)
		}
	}
}

func slicesRepeat(m protoadapt.MessageV1, n int) (all []protoadapt.MessageV1) {
	for range n {
		all = append(all, m)
	}
	return all
}

// Bytes that are no message, and texts that are nearly ours.
func TestRefusalFromAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := status.New(codes.Code(rapid.Uint32Range(1, 20).Draw(rt, "code")), rapid.OneOf(rapid.String(),
			rapid.Just(`weir: the server is full (gate "`), rapid.Map(rapid.String(), func(s string) string {
				return `weir: the server is full (gate ` + s + `): retry in`
			})).Draw(rt, "text")).Proto()
		for range rapid.IntRange(0, 3).Draw(rt, "details") {
			url := rapid.SampledFrom([]string{"google.rpc.ErrorInfo", "google.rpc.RetryInfo", ""}).Draw(rt, "type")
			st.Details = append(st.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + url, Value: rapid.SliceOf(rapid.Byte()).Draw(rt, "bytes")})
		}
		r, ok := interceptors.RefusalFrom(status.FromProto(st).Err())
		if !ok && r != (interceptors.Refusal{}) || ok && (r.Reason == "" || len(r.Reason) > 64 || len(r.Gate) > 64 || r.RetryAfter < 0 || r.RetryAfter > time.Hour) {
			rt.Errorf("got %+v, %v, want nothing, or what its fields promise", r, ok)
		}
	})
}

// The name of a gate is the program's, but it may be long, or no text at all.
func TestRefusalsOfStrangeNames(t *testing.T) {
	for name, want := range map[string]string{
		"a\"b": "a\"b", "\xff\xfe": "?", strings.Repeat("ä", 40): strings.Repeat("ä", 32), strings.Repeat("x", 5000): strings.Repeat("x", 64),
	} {
		g := newGate(t, admit.WithName(name))
		g.Drain()
		for _, opts := range [][]grpc.ServerOption{
			unaryServers(interceptors.UnaryServer(g)),
			{grpc.InTapHandle(interceptors.Tap(g))},
		} {
			r := start(t, &service{}, opts)
			_, err := r.Work(t.Context(), &demopb.WorkRequest{})
			got, ok := interceptors.RefusalFrom(err)
			if !ok || got.Gate != want || got.Reason != "draining" || !got.Remote {
				t.Errorf("gate %.80q: got %+v, %v, want one that is draining, of gate %q", name, got, ok, want)
			}
		}
	}
}

// After a tap has refused it, a call that gRPC has retried is known, too.
func TestRefusalFromARetriedTap(t *testing.T) {
	err := fmt.Errorf("max retries exhausted: failed after 3 attempts: %w",
		status.Error(codes.Unavailable, `weir: the server is full (gate "a \"weir: b\"")`))
	wantFrom(t, err, interceptors.Refusal{Reason: "queue_full", Gate: `a "weir: b"`, Remote: true}, none)
}
