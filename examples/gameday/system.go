package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

// A network is where a service is to listen, and how to reach it there.
type network func() (lis net.Listener, dial []grpc.DialOption, err error)

// sockets is this machine's.
func sockets() (net.Listener, []grpc.DialOption, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	return lis, nil, err
}

const (
	// permits is the fixed limit of the storefront. Its calls take as long as payments does.
	permits = 48
	// budget is the memory that the process may use.
	budget = 256 << 20
)

// A system is the two services, their clients, and all that weir knows about them.
type system struct {
	registry *prometheus.Registry
	shown    []debug.Source // on the page
	monitor  *pressure.Monitor
	feed     *streamcredit.Meter // the server's end of streams
	readers  *streamcredit.Meter // the subscriber's end
	orders   *broker.Meter       // of messages
	consumer *admit.Gate         // of handlers of messages
	backend  *overload.Service
	broken   atomic.Pointer[[]string] // the faults, nil while all is well
	failing  atomic.Bool              // payments fails

	mu   sync.Mutex // guards leak
	leak [][]byte

	consumed chan error // the end of the consumer

	plain     demopb.StorefrontServiceClient // a client of the storefront without weir
	followers demopb.StreamServiceClient

	network network
	conns   []*grpc.ClientConn
	servers []*grpc.Server
	serving sync.WaitGroup
}

// open starts the system.
func open(seed uint64, n network) (_ *system, err error) {
	s := &system{
		registry: prometheus.NewRegistry(),
		feed:     streamcredit.NewMeter("feed"),
		readers:  streamcredit.NewMeter("readers"),
		backend:  overload.NewService(overload.Config{Workers: paymentWorkers, Mean: wellPayment, Seed: seed}),
		consumed: make(chan error, 1),
		network:  n,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.monitor, err = pressure.New(pressure.WithName("process"), pressure.WithSignals(
		pressure.Memory(pressure.MemoryConfig{Limit: budget, KeepGoLimit: true}), pressure.GC(), pressure.Processors())); err != nil {
		return nil, err
	}
	s.monitor.Start()
	if err := s.watch(s.monitor, s.feed, s.readers); err != nil {
		return nil, err
	}
	if err := s.openConsumer(); err != nil {
		return nil, err
	}
	toPayments, err := s.startPayments()
	if err != nil {
		return nil, err
	}
	if err := s.startStorefront(demopb.NewPaymentsServiceClient(toPayments)); err != nil {
		return nil, err
	}
	return s, nil
}

// watch adds sources to /metrics and to the page.
func (s *system) watch(sources ...metrics.Source) error {
	for _, source := range sources {
		s.shown = append(s.shown, source)
	}
	c, err := metrics.NewCollector(sources...)
	if err != nil {
		return err
	}
	return s.registry.Register(c)
}

// gate returns a gate that is watched. Without a limit of its own it adapts.
func (s *system) gate(name string, n int, opts ...admit.Option) (*admit.Gate, error) {
	opts = append(opts, admit.WithName(name), admit.WithPressure(s.monitor))
	if n > 0 {
		l, err := limit.NewFixed(n)
		if err != nil {
			return nil, err
		}
		opts = append(opts, admit.WithLimit(l))
	}
	g, err := admit.New(opts...)
	if err != nil {
		return nil, err
	}
	return g, s.watch(g)
}

// startPayments starts payments, and returns the storefront's connection to it.
func (s *system) startPayments() (*grpc.ClientConn, error) {
	gate, err := s.gate("payments", 0)
	if err != nil {
		return nil, err
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate}, interceptors.WithPropagation(ourselves))
	if err != nil {
		return nil, err
	}
	targets, err := throttle.New(throttle.Config{Name: "payments"})
	if err != nil {
		return nil, err
	}
	circuits, err := breaker.New(breaker.Config{
		Name: "payments", Window: time.Second, MinCalls: 10, OpenFor: 500 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	again := retry.NewMeter("payments")
	if err := s.watch(targets, circuits, again); err != nil {
		return nil, err
	}
	dial, err := interceptors.Client(interceptors.ClientConfig{
		Propagate: true, DeadlineMargin: 10 * time.Millisecond,
		Throttle: targets, Breaker: circuits, Retry: &retry.Config{}, Retries: again,
	})
	if err != nil {
		return nil, err
	}
	return s.start(opts, func(r grpc.ServiceRegistrar) {
		demopb.RegisterPaymentsServiceServer(r, &payments{system: s})
	}, "payments", dial)
}

// startStorefront starts the storefront and the connection of its customers.
func (s *system) startStorefront(to demopb.PaymentsServiceClient) error {
	// Callers wait until their own deadlines.
	gate, err := s.gate("storefront", permits, admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
	if err != nil {
		return err
	}
	streams, err := s.gate("streams", permits)
	if err != nil {
		return err
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Streams: streams},
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("/weir.demo.v1.StorefrontService/Buy")),
		interceptors.WithClassFor(admit.Sheddable, interceptors.Methods("/weir.demo.v1.StorefrontService/Browse")),
		interceptors.WithPropagation(nil), interceptors.WithRetriesBelow())
	if err != nil {
		return err
	}
	conn, err := s.start(opts, func(r grpc.ServiceRegistrar) {
		services := &storefront{system: s, payments: to}
		demopb.RegisterStorefrontServiceServer(r, services)
		demopb.RegisterStreamServiceServer(r, services)
	}, "storefront", nil)
	if err != nil {
		return err
	}
	s.plain, s.followers = demopb.NewStorefrontServiceClient(conn), demopb.NewStreamServiceClient(conn)
	return nil
}

// ourselves believes the class of every caller. Only the storefront can reach payments here.
func ourselves(context.Context) (admit.Class, bool) { return admit.Critical, true }

// start starts a server, and returns a connection to it.
func (s *system) start(
	opts []grpc.ServerOption, register func(grpc.ServiceRegistrar), name string, dial []grpc.DialOption,
) (*grpc.ClientConn, error) {
	lis, way, err := s.network()
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(append(opts, grpc.WaitForHandlers(true))...)
	register(server)
	s.servers = append(s.servers, server)
	s.serving.Go(func() { _ = server.Serve(lis) }) // until close
	if way == nil {
		address := lis.Addr().String()
		way = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		})}
	}
	// The name of the service, rather than its address, so that metrics have a target that a person knows.
	conn, err := grpc.NewClient("passthrough:///"+name,
		append(append(dial, way...), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// pagePath is where the page for people on call is.
const pagePath = "/debug/weir"

// serveAdmin serves /metrics, the page and profiles until stop.
func (s *system) serveAdmin(addr string) (url string, stop func(), err error) {
	page, err := debug.NewHandler(s.shown...)
	if err != nil {
		return "", nil, err
	}
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(pagePath, page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	// The runbook asks for goroutine dumps and heap profiles. Serve them where only operators reach them.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	s.serving.Go(func() { _ = server.Serve(lis) })
	return "http://" + lis.Addr().String(), func() { _ = server.Close() }, nil
}

// close stops everything, without waiting for calls under way.
func (s *system) close() (err error) {
	s.backend.Close()
	for _, c := range s.conns {
		err = errors.Join(err, c.Close())
	}
	for _, server := range s.servers {
		server.Stop()
	}
	s.serving.Wait()
	s.monitor.Stop()
	return err
}
