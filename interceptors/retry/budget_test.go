package retry_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/internal/grpctest"
)

// tokens reads the budget that gRPC keeps, from its private fields.
func tokens(t *testing.T, cc *grpc.ClientConn) float64 {
	t.Helper()
	field := reflect.ValueOf(cc).Elem().FieldByName("retryThrottler")
	if !field.IsValid() || field.Type() != reflect.TypeFor[atomic.Value]() {
		t.Fatalf("grpc.ClientConn.retryThrottler: got %v, want an atomic.Value, as this test knows gRPC", field)
	}
	throttler := reflect.ValueOf((*atomic.Value)(unsafe.Pointer(field.UnsafeAddr())).Load()) // #nosec G103
	if throttler.IsNil() {
		t.Fatal("grpc.ClientConn.retryThrottler: got none, want the budget of the service config")
	}
	return throttler.Elem().FieldByName("tokens").Float()
}

// answers are what a server may say to an attempt.
var answers = map[string]func(context.Context) error{
	"ok":      func(context.Context) error { return nil },
	"full":    func(context.Context) error { return status.Error(codes.Unavailable, "full") },
	"invalid": func(context.Context) error { return status.Error(codes.InvalidArgument, "invalid") },
	"answered": func(ctx context.Context) error {
		_ = grpc.SendHeader(ctx, metadata.Pairs("a", "b"))
		return status.Error(codes.Unavailable, "full")
	},
	"later":     pushes(codes.Unavailable, "20"),
	"never":     pushes(codes.Unavailable, "-1"),
	"nonsense":  pushes(codes.Unavailable, "soon"),
	"twice":     pushes(codes.Unavailable, "10", "20"),
	"exhausted": pushes(codes.ResourceExhausted, "-1"), // a code that is not retried
	"other":     pushes(codes.ResourceExhausted, "10"),
}

func pushes(code codes.Code, ms ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		_ = grpc.SetTrailer(ctx, metadata.MD{pushback: ms})
		return status.Error(code, "refused")
	}
}

// A scripted server says what it is told, and ok at the end of its script.
type scripted struct {
	demopb.UnimplementedDemoServiceServer
	demopb.UnimplementedStreamServiceServer

	mu     sync.Mutex // guards the fields below
	script []string   // names of answers
	said   []string
}

func (s *scripted) next(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := "ok"
	if len(s.script) > 0 {
		name, s.script = s.script[0], s.script[1:]
	}
	s.said = append(s.said, name)
	return answers[name](ctx)
}

// tell begins a script, and took returns what was said of it.
func (s *scripted) tell(script ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script, s.said = script, nil
}

func (s *scripted) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said
}

func (s *scripted) Work(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return &demopb.WorkResponse{}, s.next(ctx)
}

func (s *scripted) Subscribe(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	return s.next(stream.Context())
}

func (s *scripted) start(t *testing.T, dial ...grpc.DialOption) *grpctest.Pair {
	return grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		demopb.RegisterDemoServiceServer(r, s)
		demopb.RegisterStreamServiceServer(r, s)
	}, grpctest.DialOptions(dial...))
}

func dialOptions(t *testing.T, c interceptors.ClientConfig) []grpc.DialOption {
	t.Helper()
	dial, err := interceptors.Client(c)
	if err != nil {
		t.Fatal(err)
	}
	return dial
}

// withheld returns how many calls of all methods gRPC did not send again.
func withheld(m *retry.Meter) (n uint64) {
	for _, s := range m.Stats() {
		n += s.Withheld
	}
	return n
}

// wantTokens compares the estimate of a meter with the budget that gRPC keeps.
func wantTokens(t *testing.T, after string, m *retry.Meter, cc *grpc.ClientConn) {
	t.Helper()
	want := tokens(t, cc)
	if got := m.Budgets(); len(got) != 1 || math.Abs(got[0].Tokens-want) > 1e-9 || got[0].Target != cc.CanonicalTarget() {
		t.Fatalf("budgets after %s: got %+v, want %v of %s", after, got, want, cc.CanonicalTarget())
	}
}

// After each of many calls that end in many ways, the estimate is the budget that gRPC keeps, and
// the calls are counted to which gRPC refused a retry.
func TestBudgetIsThatOfGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, server := retry.NewMeter("to-demo"), &scripted{}
		p := server.start(t, dialOptions(t, interceptors.ClientConfig{
			Retry: &retry.Config{BudgetTokens: 12, BudgetRatio: 0.7}, Retries: meter,
		})...)
		calls, streams := demopb.NewDemoServiceClient(p.Conn), demopb.NewStreamServiceClient(p.Conn)
		r := rand.New(rand.NewPCG(1, 2))
		names := []string{"ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "full", "full", "later", "invalid", "answered", "never", "nonsense", "twice", "exhausted", "other"}
		refused, retried := uint64(0), 0
		for n := range 1000 {
			script := make([]string, 3)
			for i := range script {
				script[i] = names[r.IntN(len(names))]
			}
			server.tell(script...)
			ctx, cancel := context.WithCancel(t.Context())
			kind := r.IntN(10)
			switch kind {
			case 0: // a stream
				stream, err := streams.Subscribe(ctx)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = stream.Recv()
			case 1: // too large to be kept
				_, _ = calls.Work(ctx, &demopb.WorkRequest{Name: fmt.Sprintf("%300000d", n)})
			case 2: // ends while gRPC waits for the next attempt
				time.AfterFunc(10*time.Millisecond, cancel)
				_, _ = calls.Work(ctx, &demopb.WorkRequest{})
			default:
				_, _ = calls.Work(ctx, &demopb.WorkRequest{})
			}
			said := server.took()
			retried += len(said) - 1
			last := said[len(said)-1]
			cancel()
			if kind > 1 && len(said) < 3 && (last == "full" || last == "later") && tokens(t, p.Conn) <= 6 {
				refused++
			}
			synctest.Wait()
			wantTokens(t, fmt.Sprintf("call %d of kind %d with %q", n, kind, said), meter, p.Conn)
		}
		if got := withheld(meter); got != refused || refused < 25 || retried < 25 {
			t.Errorf("withheld: got %d, want %d, at least 25, and retries: got %d, want at least 25", got, refused, retried)
		}
	})
}

// An attempt that finds no connection counts once, although gRPC begins it twice.
func TestBudgetOfATargetThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, server := retry.NewMeter("to-demo"), &scripted{}
		p := server.start(t)
		conn := p.Dial(t, append(dialOptions(t, interceptors.ClientConfig{
			Retry: &retry.Config{BudgetTokens: 10}, Retries: meter,
		}), grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, io.ErrClosedPipe }))...)
		for n, want := range []retry.MeterStats{ // the budget has 10, 7, 5 and 4 tokens
			{Calls: 1, Retries: 2}, {Calls: 2, Retries: 3, Withheld: 1}, {Calls: 3, Retries: 3, Withheld: 2},
		} {
			if _, err := demopb.NewDemoServiceClient(conn).Work(t.Context(), &demopb.WorkRequest{}); err == nil {
				t.Fatal("a call to a server that is gone: got no error, want one")
			}
			wantTokens(t, fmt.Sprint("call ", n), meter, conn)
			want.Target, want.Method = conn.CanonicalTarget(), work
			if got := meter.Stats(); len(got) != 1 || got[0] != want {
				t.Errorf("call %d: got %+v, want %+v", n, got, want)
			}
		}
	})
}

// resolves returns a resolver that the test controls.
func resolves() *manual.Resolver {
	names := manual.NewBuilderWithScheme("passthrough")
	names.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "a"}}})
	return names
}

// A budget that gRPC has refilled unseen is found as soon as gRPC retries. The estimate has too
// few tokens until then, never too many.
func TestBudgetIsRefilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, server := retry.NewMeter("to-demo"), &scripted{}
		p := server.start(t)
		names := resolves()
		conn := p.Dial(t, append(dialOptions(t, interceptors.ClientConfig{
			Retry: &retry.Config{BudgetTokens: 10}, Retries: meter,
		}), grpc.WithResolvers(names))...)
		client := demopb.NewDemoServiceClient(conn)
		fails := func() int {
			server.tell("full", "full", "full", "full")
			_, _ = client.Work(t.Context(), &demopb.WorkRequest{})
			return len(server.took())
		}
		for tries := 2; tries > 1; {
			tries = fails()
		}
		wantTokens(t, "a budget that is used up", meter, conn)
		if got := withheld(meter); got == 0 {
			t.Error("withheld: got none, want some")
		}
		names.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: "a"}, {Addr: "b"}}})
		synctest.Wait()
		if got := tokens(t, conn); got != 10 {
			t.Fatalf("gRPC's budget after a result of the resolver: got %v, want it refilled to 10", got)
		}
		if got := fails(); got != 3 {
			t.Fatalf("attempts after the refill: got %d, want 3", got)
		}
		if got := meter.Budgets(); len(got) != 1 || got[0].Tokens < 4 || got[0].Tokens > tokens(t, conn) {
			t.Errorf("budgets after a retry: got %+v, want 4 or more, since gRPC retries, and at most its %v", got, tokens(t, conn))
		}
	})
}

// A budget is shown while gRPC uses the policy of the program. A resolver may replace it, and a
// connection may be closed.
func TestBudgetsThatAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, server := retry.NewMeter("to-demo"), &scripted{}
		p := server.start(t)
		names := resolves()
		policy := &retry.Config{Methods: []string{work}}
		own, err := policy.ServiceConfig()
		if err != nil {
			t.Fatal(err)
		}
		conn := p.Dial(t, append(dialOptions(t, interceptors.ClientConfig{Retry: policy, Retries: meter}), grpc.WithResolvers(names))...)
		call := func() { _, _ = demopb.NewDemoServiceClient(conn).Work(t.Context(), &demopb.WorkRequest{}) }
		stream := func() {
			if s, err := demopb.NewStreamServiceClient(conn).Subscribe(t.Context()); err == nil {
				_, _ = s.Recv()
			}
		}
		want := func(after string, n int) {
			t.Helper()
			synctest.Wait()
			if got := meter.Budgets(); len(got) != n {
				t.Errorf("budgets after %s: got %+v, want %d", after, got, n)
			}
		}
		want("no call", 0)
		server.tell("never")
		stream()
		wantTokens(t, "a stream that may not be retried, and takes a token still", meter, conn)
		call()
		wantTokens(t, "a call", meter, conn)
		state := func(config string) {
			names.UpdateState(resolver.State{
				Addresses: []resolver.Address{{Addr: "a"}}, ServiceConfig: names.CC().ParseServiceConfig(config),
			})
			synctest.Wait()
			call()
		}
		state(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2,
			"initialBackoff": "1s", "maxBackoff": "1s", "backoffMultiplier": 1, "retryableStatusCodes": ["INTERNAL"]}}]}`)
		want("a call with the policy of a resolver", 0)
		state(own)
		want("a call with the policy of the program", 1)
		state(`{}`)
		want("a call without a policy", 0)
		state(own)
		want("a call with the policy of the program again", 1)
		_ = conn.Close()
		want("the end of the connection", 0)
		call()
		want("a call on the closed connection", 0)
	})
}

// Each connection has a budget. Of a target with several, the one with the fewest tokens is shown.
func TestBudgetsOfSeveralConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, server := retry.NewMeter("to-demo"), &scripted{}
		dial := dialOptions(t, interceptors.ClientConfig{Retry: &retry.Config{}, Retries: meter})
		p := server.start(t, dial...)
		other := p.Dial(t, dial...)
		for range 10 {
			server.tell("never")
			_, _ = demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{})
			_, _ = demopb.NewDemoServiceClient(other).Work(t.Context(), &demopb.WorkRequest{})
		}
		wantTokens(t, "calls of two connections", meter, p.Conn)
		_ = p.Conn.Close()
		wantTokens(t, "the end of the first connection", meter, other)
	})
}

// The budget takes no allocation of its own for a call.
func TestBudgetDoesNotAllocate(t *testing.T) {
	allocations := func(c interceptors.ClientConfig, budget *retry.Config) float64 {
		dial := append(dialOptions(t, c), retry.NewMeter("to-demo").DialOptions(budget)...)
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, &brittle{}) }, grpctest.DialOptions(dial...))
		client := demopb.NewDemoServiceClient(p.Conn)
		return testing.AllocsPerRun(500, func() {
			if _, err := client.Work(context.Background(), &demopb.WorkRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	c := interceptors.ClientConfig{Retry: &retry.Config{}}
	if with, without := allocations(c, &retry.Config{}), allocations(c, nil); with > without+0.5 {
		t.Errorf("allocations of a call: got %v with an estimate of the budget and %v without, want as many", with, without)
	}
}
