// Command server is a gRPC server behind weir, with metrics and a page. Run it, then ../client.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/metrics"
)

type demo struct {
	demopb.UnimplementedDemoServiceServer
}

func (demo) Work(_ context.Context, r *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	time.Sleep(time.Duration(r.GetCostMicros()) * time.Microsecond)
	return &demopb.WorkResponse{Message: "done for " + r.GetName()}, nil
}

func main() {
	addr, pages := flag.String("addr", "localhost:50051", "gRPC"), flag.String("metrics", "localhost:9464", "/metrics")
	grace := flag.Duration("grace", 20*time.Second, "how long calls may take to end when the server stops")
	flag.Parse()
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	gate := must(admit.New(admit.WithName("demo"))) // an adaptive limit and a short queue
	prometheus.MustRegister(must(metrics.NewCollector(gate)))
	server := grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate)), grpc.MaxConcurrentStreams(1000))
	demopb.RegisterDemoServiceServer(server, demo{})
	healthpb.RegisterHealthServer(server, health.NewServer())
	calls, scrapes := must(net.Listen("tcp", *addr)), must(net.Listen("tcp", *pages))
	log.Printf("gRPC on %v, http://%v/metrics", calls.Addr(), scrapes.Addr())
	http.Handle("/debug/weir", must(debug.NewHandler(gate)))
	http.Handle("/metrics", promhttp.Handler())
	web := &http.Server{ReadHeaderTimeout: time.Second}
	go func() { must("", web.Serve(scrapes)) }()
	go func() { must("", server.Serve(calls)) }()
	<-stop.Done()
	ctx, cancel := context.WithTimeout(context.Background(), *grace)
	defer cancel()
	must("", interceptors.Shutdown(ctx, server, gate)) // the error lists the calls that had to be ended
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
