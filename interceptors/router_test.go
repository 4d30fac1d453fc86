package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/limit"
)

// A shop is a server with several methods, whose calls take the time that their request
// says, and a connection to it.
type shop struct{ conn *grpc.ClientConn }

var methodsOfShop = []string{"/shop.Orders/Buy", "/shop.Orders/List", "/shop.Search/Find"}

func startShop(t *testing.T, server []grpc.ServerOption) shop {
	t.Helper()
	handle := func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor, method string) (any, error) {
		req := &demopb.WorkRequest{}
		if err := decode(req); err != nil {
			return nil, err
		}
		info := &grpc.UnaryServerInfo{FullMethod: method}
		return interceptor(ctx, req, info, func(ctx context.Context, _ any) (any, error) {
			d, _ := time.ParseDuration(req.GetName())
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			return &demopb.WorkResponse{}, ctx.Err()
		})
	}
	open := grpc.StreamDesc{StreamName: "Watch", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
		if err := ss.SendMsg(&demopb.WorkResponse{}); err != nil { // it is open
			return err
		}
		<-ss.Context().Done()
		return nil
	}}
	services := map[string]*grpc.ServiceDesc{}
	for _, full := range methodsOfShop {
		parts := strings.Split(full, "/")
		d := services[parts[1]]
		if d == nil {
			d = &grpc.ServiceDesc{ServiceName: parts[1], HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{open}}
			services[parts[1]] = d
		}
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: parts[2], Handler: func(
			srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor,
		) (any, error) {
			return handle(srv, ctx, decode, interceptor, full)
		}})
	}
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		for _, d := range services {
			r.RegisterService(d, struct{}{})
		}
	}, grpctest.ServerOptions(server...))
	return shop{p.Conn}
}

func (s shop) call(ctx context.Context, method string, takes time.Duration) error {
	return s.conn.Invoke(ctx, method, &demopb.WorkRequest{Name: takes.String()}, &demopb.WorkResponse{})
}

// open opens a stream, and returns when it is open or was refused.
func (s shop) open(ctx context.Context, method string) error {
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	return stream.RecvMsg(&demopb.WorkResponse{})
}

func gateNamed(t *testing.T, name string, n int) *admit.Gate {
	t.Helper()
	return newGate(t, admit.WithName(name), admit.WithLimit(fixed(n)), admit.WithoutQueue())
}

func serverOptions(t *testing.T, c interceptors.ServerConfig, opts ...interceptors.ServerOption) []grpc.ServerOption {
	t.Helper()
	server, err := interceptors.Server(c, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// Each call is for the first gate that matches: unary calls, streams and tap alike.
func TestGates(t *testing.T) {
	for _, tap := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			buy, orders, feed, rest := gateNamed(t, "buy", 1), gateNamed(t, "orders", 2), gateNamed(t, "feed", 1), gateNamed(t, "rest", 1)
			c := interceptors.ServerConfig{
				Gates: gates.Rules{
					{Gate: feed, Match: interceptors.Methods("/shop.Orders/"), Streams: true},
					{Gate: buy, Match: interceptors.Methods("/shop.Orders/Buy")},
					{Gate: orders, Match: interceptors.Methods("/shop.Orders/")},
				},
				Gate: rest,
				Tap:  tap,
			}
			if tap {
				c.Gates = c.Gates[1:] // it cannot tell streams from calls
			}
			s := startShop(t, serverOptions(t, c))
			var running sync.WaitGroup
			for _, method := range methodsOfShop {
				running.Go(func() {
					if err := s.call(t.Context(), method, time.Second); err != nil {
						t.Errorf("%s: got %v, want no error", method, err)
					}
				})
			}
			time.Sleep(time.Millisecond)
			wantCode(t, s.call(t.Context(), "/shop.Orders/Buy", 0), codes.Unavailable)
			wantCode(t, s.call(t.Context(), "/shop.Orders/List", 0), codes.OK)
			wantCode(t, s.call(t.Context(), "/shop.Search/Find", 0), codes.Unavailable)
			running.Wait()
			if !tap {
				ctx, cancel := context.WithCancel(t.Context())
				wantCode(t, s.open(ctx, "/shop.Orders/Watch"), codes.OK)
				wantCode(t, s.open(ctx, "/shop.Orders/Watch"), codes.Unavailable)
				wantCode(t, s.open(ctx, "/shop.Search/Watch"), codes.OK) // no gate for these
				wantCode(t, s.open(ctx, "/shop.Search/Watch"), codes.OK)
				cancel()
				synctest.Wait()
				atRest(t, feed, 1, 0, 0)
			}
			atRest(t, buy, 0, 1, 0)
			atRest(t, orders, 0, 2, 0)
			atRest(t, rest, 0, 1, 0)
			if got := buy.Stats().Refused[0][admit.QueueFull]; got != 1 {
				t.Errorf("refused at buy: got %d, want 1", got)
			}
		})
	}
}

// What no gate matches is not limited, nor are health checks by a gate for everything.
func TestGatesLeaveTheRestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		buy := gateNamed(t, "buy", 1)
		s := startShop(t, serverOptions(t, interceptors.ServerConfig{
			Gates: gates.Rules{{Gate: buy, Match: interceptors.Methods("/shop.Orders/Buy")}},
		}))
		fill(t, buy)
		wantCode(t, s.call(t.Context(), "/shop.Orders/Buy", 0), codes.Unavailable)
		wantCode(t, s.call(t.Context(), "/shop.Orders/List", 0), codes.OK)
		wantCode(t, s.open(t.Context(), "/shop.Orders/Watch"), codes.OK)
	})
	synctest.Test(t, func(t *testing.T) { // Gate alone is for what the streams' gates are not for
		gate, feed := gateNamed(t, "calls", 1), gateNamed(t, "feed", 1)
		s := startShop(t, serverOptions(t, interceptors.ServerConfig{Gates: gates.Rules{{Gate: feed, Streams: true}}, Gate: gate}))
		fill(t, gate)
		wantCode(t, s.call(t.Context(), "/shop.Orders/Buy", 0), codes.Unavailable)
		wantCode(t, s.open(t.Context(), "/shop.Orders/Watch"), codes.OK)
		wantCode(t, s.open(t.Context(), "/shop.Orders/Watch"), codes.Unavailable)
	})
	all := gates.Rules{{Gate: gateNamed(t, "all", 1), Match: interceptors.MatchFunc(func(context.Context, interceptors.CallMeta) bool { panic("boom") })}}
	fill(t, all[0].Gate)
	r := startShop(t, serverOptions(t, interceptors.ServerConfig{Gates: all, Tap: true, Outside: []grpc.UnaryServerInterceptor{
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (_ any, err error) {
			defer func() {
				if v := recover(); v != nil {
					err = errors.New("recovered")
				}
			}()
			return h(ctx, req)
		},
	}}))
	if err := r.call(t.Context(), "/shop.Orders/Buy", 0); err == nil || !strings.Contains(err.Error(), "recovered") {
		t.Errorf("a matcher that panics: got %v, want it to get to the recovery outside, and no further", err)
	}
}

const shopGates = `{"gates": [
  {"name": "buy", "methods": ["/shop.Orders/Buy"], "limit": {"algorithm": "fixed", "limit": 1}, "queue": null},
  {"name": "feed", "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}},
  {"name": "rest", "limit": {"algorithm": "gradient"}, "quotas": {"tenant": {"rate": 1}}}
]}`

// Gates from a document, changed by another while calls run.
func TestGatesFromADocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hooked []string
		var mu sync.Mutex
		rules, err := gates.FromJSON([]byte(shopGates), admit.WithHooks(admit.Hooks{LimitChanged: func(from, to int) {
			mu.Lock()
			defer mu.Unlock()
			hooked = append(hooked, fmt.Sprint(from, "->", to))
		}}))
		if err != nil {
			t.Fatal(err)
		}
		tenant := interceptors.WithTenant(func(context.Context, interceptors.CallMeta) string { return "a" })
		s := startShop(t, serverOptions(t, interceptors.ServerConfig{Gates: rules}, tenant))
		buy := rules.All()[0]
		var running sync.WaitGroup
		running.Go(func() { wantCode(t, s.call(t.Context(), "/shop.Orders/Buy", time.Second), codes.OK) })
		time.Sleep(time.Millisecond)
		wantCode(t, s.call(t.Context(), "/shop.Orders/Buy", 0), codes.Unavailable)
		if err := rules.Update([]byte(strings.ReplaceAll(shopGates, `"limit": 1}`, `"limit": 2}`))); err != nil {
			t.Fatal(err)
		}
		wantCode(t, s.call(t.Context(), "/shop.Orders/Buy", 0), codes.OK)
		wantCode(t, s.call(t.Context(), "/shop.Orders/List", 0), codes.OK)
		wantCode(t, s.call(t.Context(), "/shop.Search/Find", 0), codes.ResourceExhausted) // over the tenant's quota
		if err := rules.Update([]byte(`{"gates": [{"name": "rest", "quotas": {"tenant": {"rate": 1000}}}]}`)); err != nil {
			t.Fatal(err)
		}
		running.Wait()
		wantCode(t, s.call(t.Context(), "/shop.Search/Find", 0), codes.OK)
		if got := buy.Stats().Limit; got != 2 {
			t.Errorf("limit of a gate that the document does not name: got %d, want 2 still", got)
		}
		if got := fmt.Sprint(hooked); got != "[1->2]" {
			t.Errorf("hooks: got %s, want [1->2]", got)
		}
	})
}

func adaptive(t *testing.T, name string) *admit.Gate {
	t.Helper()
	return newGate(t, admit.WithName(name))
}

func TestServerConfigSaysWhatIsWrong(t *testing.T) {
	g, h := gateNamed(t, "g", 1), gateNamed(t, "h", 2)
	buy, orders := interceptors.Methods("/shop.Orders/Buy"), interceptors.Methods("/shop.Orders/")
	for says, c := range map[string]interceptors.ServerConfig{
		"server: Gate: got nil, want a gate, or Gates":              {},
		"server: Gate: got a zero Gate, want one from admit.New":    {Gate: &admit.Gate{}},
		"server: Streams: got a zero Gate":                          {Gate: g, Streams: &admit.Gate{}},
		"server: Gates[0]: Gate: got nil":                           {Gates: gates.Rules{{}}},
		"server: Gates[0]: Gate: got a zero Gate":                   {Gates: gates.Rules{{Gate: &admit.Gate{}}}},
		"Gates[1]: Gate: got the gate of Gates[0], want one of its": {Gates: gates.Rules{{Gate: g, Match: buy}, {Gate: g}}},
		"Gates[1]: Gate: got the gate of Gates[0], want one of":     {Gates: gates.Rules{{Gate: g, Match: buy}, {Gate: g, Match: orders, Streams: true}}},
		"Gates[0]: Gate: got the gate of Gate or Streams":           {Gate: g, Gates: gates.Rules{{Gate: g, Match: buy}}},
		"Gates[0]: Gate: got the gate of Gate or Streams, want":     {Gate: h, Streams: g, Gates: gates.Rules{{Gate: g, Match: buy}}},
		`Gates[1]: Gate: got the name "g" of Gates[0]`:              {Gates: gates.Rules{{Gate: g, Match: buy}, {Gate: gateNamed(t, "g", 1)}}},
		`Gates[0]: Gate: got the name "g" of Streams, want one`:     {Streams: gateNamed(t, "g", 1), Gates: gates.Rules{{Gate: gateNamed(t, "g", 1), Match: buy}}},
		`Gates[0]: Gate: got the name "g" of Gate, want one`:        {Gate: g, Gates: gates.Rules{{Gate: gateNamed(t, "g", 1), Match: buy}}},
		"Gates[1]: got a rule that no call reaches, want it before": {Gates: gates.Rules{{Gate: g}, {Gate: h, Match: buy}}},
		`Gates[1]: Match: got "/shop.Orders/Buy", which is for Gates[0] already`: {
			Gates: gates.Rules{{Gate: g, Match: orders}, {Gate: h, Match: buy}},
		},
		`Gates[0]: Match: Methods: got "shop.Orders/Buy", want "/shop.Orders/Buy"`: {
			Gates: gates.Rules{{Gate: g, Match: interceptors.Methods("shop.Orders/Buy")}},
		},
		"Gates[0]: Match: got a nil selector.":                                            {Gates: gates.Rules{{Gate: g, Match: interceptors.MatchFunc(nil)}}},
		`server: Streams: got gate "x" with a limit that adapts, want a fixed one`:        {Gate: g, Streams: adaptive(t, "x")},
		`server: Gates[0]: Gate: got gate "y" with a limit that adapts`:                   {Gates: gates.Rules{{Gate: adaptive(t, "y"), Streams: true}}},
		"server: Tap: got it with Streams, want one of them":                              {Gates: gates.Rules{{Gate: g}, {Gate: h, Streams: true}}, Tap: true},
		"server: Tap: got it without a gate for unary calls":                              {Gates: gates.Rules{{Gate: h, Streams: true}}, Tap: true},
		"MaxConcurrentStreams: got 3, want at least 64, which the gates let run and wait": {Gate: adaptive(t, "z"), MaxConcurrentStreams: 3},
		"MaxConcurrentStreams: got 2, want at least 3, which":                             {Gate: g, Streams: h, MaxConcurrentStreams: 2},
	} {
		server, err := interceptors.Server(c)
		wantConfigError(t, err, says)
		if server != nil {
			t.Errorf("%s: got options with the error, want none", says)
		}
	}
	// One error that names every mistake.
	_, err := interceptors.Server(interceptors.ServerConfig{
		Outside: []grpc.UnaryServerInterceptor{nil},
		Gates:   gates.Rules{{Gate: &admit.Gate{}, Match: interceptors.Methods("a b")}, {Gate: g, Streams: true}},
		Streams: g,
	}, nil, interceptors.WithClassFor(6, interceptors.Methods("/shop.Orders")))
	for _, says := range []string{
		"Gates[0]: Gate: got a zero Gate", `Gates[0]: Match: Methods: got "a b"`, "Gates[1]: Gate: got the gate of Gate or Streams", "Outside[0]: got nil",
		"server: option 0: got nil", `WithClassFor(class(6)): Methods: got "/shop.Orders", want "/shop.Orders/"`, "WithClassFor(class(6)): got a class that no gate has",
	} {
		wantConfigError(t, err, says)
	}
	// What is right.
	own := newGate(t, admit.WithName("own"), admit.WithClassConfig(6, admit.ClassConfig{Name: "six"}))
	_ = serverOptions(t, interceptors.ServerConfig{
		Gates: gates.Rules{{Gate: g, Match: buy}, {Gate: h, Match: orders, Streams: true}, {Gate: own, Match: orders}}, Gate: adaptive(t, "rest"), MaxConcurrentStreams: 1 << 20,
	}, interceptors.WithClassFor(6, nil), interceptors.WithMatcher(nil))
}

func TestMethodsSaysWhatIsWrong(t *testing.T) {
	g := gateNamed(t, "g", 1)
	for name, want := range map[string]string{
		"shop.Checkout/Buy":    `want "/shop.Checkout/Buy"`,
		"/shop.Checkout":       `want "/shop.Checkout/" for all methods of a service, or "/shop.Checkout/" and a method`,
		"shop.Checkout":        `want "/shop.Checkout/"`,
		"shop.Checkout/":       `want "/shop.Checkout/"`,
		"":                     `want "/service/method"`,
		"/":                    `want "/service/method"`,
		"//":                   `want "/service/method"`,
		"//Buy":                `want "/service/method"`,
		"/shop.Checkout/Buy/":  `want "/service/method"`,
		"/shop.Checkout/ Buy":  "there are no wildcards",
		" /shop.Checkout/Buy":  "there are no wildcards",
		"/shop.Checkout/*":     "there are no wildcards",
		"*":                    "there are no wildcards",
		"/shop.Checkout/Buy\n": "there are no wildcards",
		"/shop.Größe/Buy":      "there are no wildcards",
	} {
		bad := interceptors.Methods("/shop.Checkout/Buy", name)
		says := fmt.Sprintf("Methods: got %q, ", name)
		for what, opt := range map[string]interceptors.Option{
			"WithMatcher: ":            interceptors.WithMatcher(bad),
			"WithClassFor(critical): ": interceptors.WithClassFor(admit.Critical, bad),
		} {
			_, err := interceptors.Server(interceptors.ServerConfig{Gate: g}, opt)
			wantConfigError(t, err, "server: "+what+says)
			wantConfigError(t, err, want)
			_, err = interceptors.Client(interceptors.ClientConfig{Gate: g}, opt)
			wantConfigError(t, err, "client: "+what+says)
			_, err = interceptors.UnaryServer(g, opt)(t.Context(), nil, workInfo, succeed)
			wantCode(t, err, codes.Internal)
			err = interceptors.UnaryClient(g, opt)(t.Context(), work, nil, nil, nil, nil)
			wantCode(t, err, codes.Internal)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want it to say %q", err, says)
			}
		}
	}
	_, err := interceptors.Server(interceptors.ServerConfig{Gate: g}, interceptors.WithMatcher(interceptors.Methods()))
	wantConfigError(t, err, "Methods: got no name")
	for _, i := range []interceptors.ServerOption{nil, interceptors.WithClassFor(7, nil), interceptors.WithMatcher(interceptors.MatchFunc(nil))} {
		_, err := interceptors.UnaryServer(g, i)(t.Context(), nil, workInfo, succeed)
		wantCode(t, err, codes.Internal)
		wantCode(t, interceptors.StreamServer(g, i)(nil, &serverStream{ctx: t.Context()}, nil, nil), codes.Internal)
	}
	zero := &admit.Gate{}
	_, err = interceptors.UnaryServer(zero)(t.Context(), nil, workInfo, succeed)
	wantCode(t, err, codes.Internal)
	wantCode(t, interceptors.UnaryClient(zero)(t.Context(), work, nil, nil, nil, nil), codes.Internal)
}

func TestClientConfigSaysWhatIsWrong(t *testing.T) {
	_, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}, DeadlineMargin: time.Second})
	wantConfigError(t, err, "client: DeadlineMargin: got 1s without Propagate, want both or none")
	_, err = interceptors.Client(interceptors.ClientConfig{
		Propagate: true, DeadlineMargin: -1,
		Throttle: &throttle.Throttle{},
		Gate:     &admit.Gate{},
		Streams:  adaptive(t, "streams"),
		Breaker:  &breaker.Breaker{},
		Retry:    &retry.Config{MaxAttempts: 9, Multiplier: math.NaN()},
	}, nil, interceptors.WithClassFor(5, nil))
	for _, says := range []string{
		"client: DeadlineMargin: got -1ns", "client: Throttle: got a zero Throttle, want one from throttle.New", "client: Gate: got a zero Gate",
		`client: Streams: got gate "streams" with a limit that adapts`, "client: Breaker: got a zero Breaker", "client: Retry: MaxAttempts: got 9",
		"client: Retry: Multiplier: got NaN", "client: option 0: got nil", "client: WithClassFor(class(5)): got a class that no gate has",
	} {
		wantConfigError(t, err, says)
	}
	if err != nil && strings.Count(err.Error(), "invalid configuration") != 1 {
		t.Errorf("got %v, want it to begin once", err)
	}
}

// Streams up to their gate's limit leave room for calls on the same connection.
func TestStreamsLeaveRoomForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams, err := limit.NewFixed(1500)
		if err != nil {
			t.Fatal(err)
		}
		feed := newGate(t, admit.WithLimit(streams), admit.WithoutQueue())
		s := startShop(t, serverOptions(t, interceptors.ServerConfig{Gate: adaptive(t, "calls"), Streams: feed}))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for range 1500 {
			if err := s.open(ctx, "/shop.Orders/Watch"); err != nil {
				t.Fatalf("stream: got %v, want it open", err)
			}
		}
		wantCode(t, s.open(ctx, "/shop.Orders/Watch"), codes.Unavailable)
		wantCode(t, s.call(ctx, "/shop.Orders/Buy", time.Millisecond), codes.OK)
		cancel()
		synctest.Wait()
	})
}

// Quotas through interceptors: the code, and the delay that clients are told.
func TestQuotaOverGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 3, Burst: 1}}))
		tenant := interceptors.WithTenant(func(context.Context, interceptors.CallMeta) string { return "acme" })
		unary := interceptors.UnaryServer(g, tenant)
		call := func() ([]string, error) {
			s := &callStream{}
			_, err := unary(grpc.NewContextWithServerTransportStream(t.Context(), s), nil, workInfo, succeed)
			return s.trailer[pushback], err
		}
		if _, err := call(); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"334", "234", "134"} {
			delay, err := call()
			wantCode(t, err, codes.ResourceExhausted)
			var r *admit.Refusal
			if !errors.As(err, &r) || r.Reason != admit.OverQuota || len(delay) != 1 || delay[0] != want {
				t.Errorf("refusal %d: got %v and a delay of %q, want over_quota and %s", i, err, delay, want)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

func BenchmarkGates(b *testing.B) {
	var rules gates.Rules
	for i := range 5 {
		g, err := admit.New(admit.WithName(fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		rules = append(rules, gates.Rule{Gate: g, Match: interceptors.Methods(fmt.Sprintf("/shop.Service%d/", i))})
	}
	i := interceptors.UnaryOf(interceptors.ServerConfig{Gates: rules})
	info := &grpc.UnaryServerInfo{FullMethod: "/shop.Service4/Buy"}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = i(b.Context(), nil, info, succeed)
	}
}
