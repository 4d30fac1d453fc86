package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

// A server with one gate: the default one finds its limit by itself.
func Example() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(interceptors.UnaryServer(gate)),   // after recovery and authentication
		grpc.ChainStreamInterceptor(interceptors.StreamServer(gate)), // streams count as calls
		grpc.MaxConcurrentStreams(1000),                              // for each connection; unlimited otherwise
	)
	client, stop := serve(server)
	defer stop()

	resp, err := client.Work(context.Background(), &demopb.WorkRequest{Name: "hello"})
	fmt.Println(resp.GetMessage(), err)

	gate.Drain() // part of Shutdown
	_, err = client.Work(context.Background(), &demopb.WorkRequest{Name: "hello"})
	fmt.Println(status.Code(err), status.Convert(err).Message())
	// Output:
	// hello <nil>
	// Unavailable weir: the server is shutting down (gate "default"): another server may take the call
}

// What a refusal tells its caller.
func ExampleUnaryServer() {
	gate, err := admit.New(admit.WithName("write"))
	if err != nil {
		log.Fatal(err)
	}
	gate.Drain()
	client, stop := serve(grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate))))
	defer stop()

	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println(d.GetReason(), d.GetDomain(), d.GetMetadata()["gate"])
		case *errdetails.RetryInfo:
			fmt.Println("come back later:", d.GetRetryDelay().AsDuration() > 0)
		}
	}
	// Output:
	// DRAINING weir write
	// come back later: true
}

// A caller that handles refusals reads them from any error.
func ExampleRefusalFrom() {
	gate, err := admit.New(admit.WithName("write"))
	if err != nil {
		log.Fatal(err)
	}
	gate.Drain()
	client, stop := serve(grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate))))
	defer stop()

	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	if r, ok := interceptors.RefusalFrom(fmt.Errorf("buy: %w", err)); ok {
		fmt.Println(r.Reason, "by", r.Gate, "remote:", r.Remote, "soon:", r.RetryAfter <= 20*time.Millisecond)
	}
	// Output:
	// draining by write remote: true soon: true
}

// A health watch would keep GracefulStop waiting for ever.
func ExampleShutdown() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	client, stop := serve(server)
	defer stop()
	if _, err := client.Work(context.Background(), &demopb.WorkRequest{}); err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(interceptors.Shutdown(ctx, server, gate), gate.Stats().Draining)
	// Output:
	// <nil> true
}

// Callers wait for their turn, and are slowed down to what the other side can
// do; a call that the gate refuses has not left the process.
func ExampleUnaryClient() {
	gate, err := admit.New(admit.WithName("to-demo"), admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(), grpc.WithUnaryInterceptor(interceptors.UnaryClient(gate)))
	defer stop()

	resp, err := client.Work(context.Background(), &demopb.WorkRequest{Name: "hello"})
	fmt.Println(resp.GetMessage(), err)

	gate.Drain()
	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(errors.Is(err, admit.ErrRefused))
	// Output:
	// hello <nil>
	// true
}

// Open streams are bounded; the permit is free again when the stream is over.
func ExampleStreamClient() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(), grpc.WithStreamInterceptor(interceptors.StreamClient(gate)))
	defer stop()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := client.Exchange(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("open:", gate.Stats().InFlight)
	cancel()
	_, err = stream.Recv()
	fmt.Println(status.Code(err), gate.Stats().InFlight)
	// Output:
	// open: 1
	// Canceled 0
}

// Streams that live long get a gate of their own, with a queue that suits them.
func ExampleStreamServer() {
	streams, err := admit.New(admit.WithName("streams"), admit.WithFixedLimit(1000), admit.WithoutQueue())
	if err != nil {
		log.Fatal(err)
	}
	streams.Drain()
	client, stop := serve(grpc.NewServer(grpc.StreamInterceptor(interceptors.StreamServer(streams))))
	defer stop()

	stream, err := client.Exchange(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	_, err = stream.Recv() // a stream is refused when it is first read
	fmt.Println(status.Code(err))
	// Output:
	// Unavailable
}

// While the gate is full, calls are turned away before they are read.
func ExampleServer_tap() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Tap: true})
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(opts...))
	defer stop()

	gate.Drain()
	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(status.Convert(err).Message())
	// Output:
	// weir: the server is shutting down (gate "default")
}

// Only what is expensive is subject to the gate.
func ExampleWithMatcher() {
	expensive := interceptors.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool { return c.Method != "Work" })
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(grpc.UnaryInterceptor(
		interceptors.UnaryServer(gate, interceptors.WithMatcher(expensive)))))
	defer stop()

	gate.Drain()
	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(err)
	// Output:
	// <nil>
}

// The class comes from what the server knows, here the method.
func ExampleWithClassifier() {
	classify := func(_ context.Context, c interceptors.CallMeta) admit.Class {
		if c.Method == "Work" {
			return admit.Sheddable
		}
		return admit.Default
	}
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(grpc.UnaryInterceptor(
		interceptors.UnaryServer(gate, interceptors.WithClassifier(classify)))))
	defer stop()

	gate.Drain()
	_, _ = client.Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(gate.Stats().Refused[admit.Sheddable][admit.Draining])
	// Output:
	// 1
}

// A handler's NOT_FOUND costs as much as its OK: let the limit learn from both.
func ExampleWithOutcome() {
	outcome := func(err error) admit.Outcome {
		switch status.Code(err) {
		case codes.OK, codes.NotFound:
			return admit.Success
		case codes.DeadlineExceeded, codes.ResourceExhausted, codes.Unavailable:
			return admit.Overload
		default:
			return admit.Ignored
		}
	}
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	call := interceptors.UnaryServer(gate, interceptors.WithOutcome(outcome))
	_, _ = call(context.Background(), nil, workInfo, func(context.Context, any) (any, error) {
		return nil, status.Error(codes.NotFound, "no such thing")
	})
	fmt.Println(gate.Stats().Ended[admit.Success])
	// Output:
	// 1
}

// Whose share is used up, the caller's or the server's: the code says it.
func ExampleWithCode() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(grpc.UnaryInterceptor(
		interceptors.UnaryServer(gate, interceptors.WithCode(admit.Draining, codes.Aborted)))))
	defer stop()

	gate.Drain()
	_, err = client.Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(status.Code(err))
	// Output:
	// Aborted
}

// Health checks pass, unless they are told to queue like everybody.
func ExampleWithoutExemptions() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	gate.Drain()
	health := &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}
	_, err = interceptors.UnaryServer(gate)(context.Background(), nil, health, succeed)
	fmt.Println(err)
	_, err = interceptors.UnaryServer(gate, interceptors.WithoutExemptions())(context.Background(), nil, health, succeed)
	fmt.Println(status.Code(err))
	// Output:
	// <nil>
	// Unavailable
}

// Who a caller is, as authentication has found out and put into the context.
type caller struct{ name string }

type callerKey struct{}

// Protect a method: what the shop lives from comes first, has half of the permits for itself,
// and reports never have more than a quarter.
func ExampleWithClassFor() {
	gate, err := admit.New(
		admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5}),
		admit.WithClassConfig(admit.Background, admit.ClassConfig{Max: 0.25}),
	)
	if err != nil {
		log.Fatal(err)
	}
	guard := interceptors.UnaryServer(gate,
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("/shop.Checkout/")),
		interceptors.WithClassFor(admit.Background, interceptors.Methods("/shop.Reports/Monthly")),
	)
	_ = grpc.NewServer(grpc.ChainUnaryInterceptor(guard))
	fmt.Println(gate.Stats().Classes[admit.Critical])
	// Output: critical
}

// Isolate a tenant: callers share what there is fairly, and who asks for more than that
// while others wait is told RESOURCE_EXHAUSTED.
func ExampleWithTenant() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	guard := interceptors.UnaryServer(gate,
		interceptors.WithTenant(func(ctx context.Context, _ interceptors.CallMeta) string {
			who, _ := ctx.Value(callerKey{}).(caller)
			return who.name
		}))
	ctx := context.WithValue(context.Background(), callerKey{}, caller{"acme"})
	info := &grpc.UnaryServerInfo{FullMethod: "/shop.Catalogue/List"}
	_, err = guard(ctx, nil, info, func(context.Context, any) (any, error) {
		fmt.Println("tenants at work:", gate.Stats().Tenants)
		return nil, nil
	})
	fmt.Println(err)
	// Output:
	// tenants at work: 1
	// <nil>
}

// Keep checkout alive: the class is given where customers come in, and travels on from service
// to service; each of them believes those who are its own.
func ExampleWithPropagation() {
	gate, err := admit.New()
	if err != nil {
		log.Fatal(err)
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate},
		interceptors.WithPropagation(func(ctx context.Context) (highest admit.Class, trusted bool) {
			who, _ := ctx.Value(callerKey{}).(caller)
			return admit.Critical, who.name == "storefront"
		}),
		interceptors.WithRetriesBelow(),
	)
	if err != nil {
		log.Fatal(err)
	}
	_ = grpc.NewServer(opts...)

	dial, err := interceptors.Client(interceptors.ClientConfig{Propagate: true})
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(), dial...)
	defer stop()
	ctx := interceptors.ContextWithClass(context.Background(), admit.Critical)
	resp, err := client.Work(ctx, &demopb.WorkRequest{Name: "sold"})
	fmt.Println(resp.GetMessage(), err)
	// Output: sold <nil>
}

// Wrap a client: it stands back when the server refuses, is unwell, or has enough of its calls.
func ExampleClient() {
	targets, err := throttle.New(throttle.Config{})
	if err != nil {
		log.Fatal(err)
	}
	circuits, err := breaker.New(breaker.Config{})
	if err != nil {
		log.Fatal(err)
	}
	limit, err := admit.New(admit.WithQueue(admit.QueueConfig{Policy: admit.Block})) // callers wait
	if err != nil {
		log.Fatal(err)
	}
	dial, err := interceptors.Client(interceptors.ClientConfig{
		Throttle: targets,
		Gate:     limit,
		Breaker:  circuits,
		Retry:    &retry.Config{},
	})
	if err != nil {
		log.Fatal(err)
	}
	client, stop := serve(grpc.NewServer(), dial...)
	defer stop()
	resp, err := client.Work(context.Background(), &demopb.WorkRequest{Name: "done"})
	fmt.Println(resp.GetMessage(), err)
	// Output: done <nil>
}

// One error names every mistake.
func ExampleServer() {
	gate, err := admit.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = interceptors.Server(
		interceptors.ServerConfig{Gate: gate, Streams: gate, MaxConcurrentStreams: 10},
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("shop.Checkout/Buy")),
	)
	fmt.Println(err)
	// Output:
	// interceptors: invalid configuration: server: Streams: got gate "default" with a limit that adapts, want a fixed one: it would learn nothing from streams
	// server: Streams: got the gate of the calls, want one of its own, or nil
	// server: MaxConcurrentStreams: got 10, want at least 64, which the gates let run and wait, or 0 (1000 here)
	// server: WithClassFor(critical): Methods: got "shop.Checkout/Buy", want "/shop.Checkout/Buy"
}
