package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/streamcredit"
)

func ExampleNewCollector() {
	two, err := limit.NewFixed(2)
	if err != nil {
		panic(err)
	}
	gate, err := admit.New(admit.WithName("api"), admit.WithLimit(two), admit.WithoutQueue())
	if err != nil {
		panic(err)
	}
	collector, err := metrics.NewCollector(gate)
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewPedanticRegistry() // a program uses prometheus.DefaultRegisterer
	registry.MustRegister(collector)

	for range 3 { // one too many
		if _, err := gate.Acquire(context.Background(), admit.Call{}); err != nil { // a program releases its permits
			fmt.Println(err)
		}
	}

	families, err := registry.Gather() // promhttp.Handler does this for a scrape
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		switch name := f.GetName(); name {
		case "weir_in_flight", "weir_limit", "weir_utilization_ratio":
			fmt.Println(name, f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output:
	// admit: refused: queue_full
	// weir_in_flight 2
	// weir_limit 2
	// weir_utilization_ratio 1
}

func ExampleNewCollector_breaker() {
	circuits, err := breaker.New(breaker.Config{Name: "backends", MinCalls: 3})
	if err != nil {
		panic(err)
	}
	collector, err := metrics.NewCollector(circuits)
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewPedanticRegistry() // a program uses prometheus.DefaultRegisterer
	registry.MustRegister(collector)

	conn, err := grpc.NewClient("passthrough:///backend", // which is down
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, io.ErrClosedPipe }),
		grpc.WithUnaryInterceptor(breaker.Unary(circuits)))
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()
	for range 5 {
		_, err := demopb.NewDemoServiceClient(conn).Work(context.Background(), &demopb.WorkRequest{})
		fmt.Println(errors.Is(err, breaker.ErrOpen))
	}

	families, err := registry.Gather() // promhttp.Handler does this for a scrape
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		switch name := f.GetName(); name {
		case "weir_breaker_failed_calls_total", "weir_breaker_refused_calls_total", "weir_breaker_openings_total":
			fmt.Println(name, f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output:
	// false
	// false
	// false
	// true
	// true
	// weir_breaker_failed_calls_total 3
	// weir_breaker_openings_total 1
	// weir_breaker_refused_calls_total 2
}

// memory runs a server in memory and returns a client of it.
func memory(h handlers) (client demopb.StreamServiceClient, stop func()) {
	lis := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(server, h)
	served := make(chan error)
	go func() { served <- server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	return demopb.NewStreamServiceClient(conn), func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}
}

func ExampleNewCollector_meter() {
	meter := streamcredit.NewMeter("events")
	collector, err := metrics.NewCollector(meter)
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewPedanticRegistry() // a program uses prometheus.DefaultRegisterer
	registry.MustRegister(collector)

	client, stop := memory(handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(meter))
		if err != nil {
			return err
		}
		for range 3 {
			if err := out.Send(stream.Context(), &demopb.SubscribeResponse{}); err != nil {
				return err
			}
		}
		return out.Finish(stream.Context())
	}})
	defer stop()
	in, err := streamcredit.DialReceive(context.Background(), client.Subscribe) // without a meter: it is another program's
	if err != nil {
		panic(err)
	}
	for _, err := range in.All(context.Background()) {
		if err != nil {
			panic(err)
		}
	}
	if err := in.Close(); err != nil {
		panic(err)
	}

	families, err := registry.Gather() // promhttp.Handler does this for a scrape
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		switch name := f.GetName(); name {
		case "weir_stream_opened_total", "weir_stream_sent_elements_total", "weir_stream_dropped_elements_total":
			fmt.Println(name, f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output:
	// weir_stream_dropped_elements_total 0
	// weir_stream_opened_total 1
	// weir_stream_sent_elements_total 3
}
