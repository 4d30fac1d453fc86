package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/limit"
)

// The two runs.
const (
	bare     = "bare"
	withWeir = "weir"
)

// A network is where a service is to listen, and how to reach it there.
type network func() (lis net.Listener, dial []grpc.DialOption, err error)

// sockets is this machine's.
func sockets() (net.Listener, []grpc.DialOption, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	return lis, nil, err
}

// A shop is the three services, each listening at a place of its own, and a customers'
// connection to the first.
type shop struct {
	run                          string
	network                      network
	storefront, orders, payments count
	backend                      *overload.Service
	customers                    demopb.StorefrontServiceClient

	sources []debug.Source // for the page with the state
	conns   []*grpc.ClientConn
	server  []*grpc.Server
	served  sync.WaitGroup
}

func open(run string, seed uint64, n network) (_ *shop, err error) {
	s := &shop{run: run, network: n, backend: overload.NewService(overload.Config{Workers: paymentWorkers, Mean: wellWork, Seed: seed})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	toPayments, err := s.start(&s.payments, func(r grpc.ServiceRegistrar) {
		demopb.RegisterPaymentsServiceServer(r, &payments{service: s.backend})
	}, s.standBack(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	toOrders, err := s.start(&s.orders, func(r grpc.ServiceRegistrar) {
		demopb.RegisterOrdersServiceServer(r, &orders{payments: demopb.NewPaymentsServiceClient(toPayments)})
	}, s.standBack(330*time.Millisecond))
	if err != nil {
		return nil, err
	}
	toStorefront, err := s.start(&s.storefront, func(r grpc.ServiceRegistrar) {
		demopb.RegisterStorefrontServiceServer(r, &storefront{orders: demopb.NewOrdersServiceClient(toOrders)})
	}, func() ([]grpc.DialOption, error) { return nil, nil }) // customers do not retry
	if err != nil {
		return nil, err
	}
	s.customers = demopb.NewStorefrontServiceClient(toStorefront)
	return s, nil
}

// start starts a service and returns a connection to it, for clients with those options.
func (s *shop) start(
	c *count, register func(grpc.ServiceRegistrar), client func() ([]grpc.DialOption, error),
) (*grpc.ClientConn, error) {
	opts, err := s.guard(c)
	if err != nil {
		return nil, err
	}
	lis, way, err := s.network()
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(opts...)
	register(server)
	s.server = append(s.server, server)
	s.served.Go(func() { _ = server.Serve(lis) }) // until close
	dial, err := client()
	if err != nil {
		return nil, err
	}
	dial = append(append(dial, way...), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), dial...)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// inside is the limit of the storefront and of the orders service. They do little work
// themselves. Their calls take as long as payments does, so there is nothing to learn a
// limit from.
const inside = 200

// guard returns the server options that protect a service.
func (s *shop) guard(c *count) ([]grpc.ServerOption, error) {
	if s.run == bare {
		return []grpc.ServerOption{grpc.ChainUnaryInterceptor(c.intercept)}, nil
	}
	var opts []admit.Option // for payments, the default limit learns its capacity
	if c != &s.payments {
		l, err := limit.NewFixed(inside)
		if err != nil {
			return nil, err
		}
		opts = append(opts, admit.WithLimit(l))
	}
	trust := ourselves
	if c == &s.storefront {
		trust = nil // customers are not asked how important they are
	}
	gate, err := admit.New(append(opts, admit.WithName(s.nameOf(c)))...)
	if err != nil {
		return nil, err
	}
	s.sources = append(s.sources, gate)
	return interceptors.Server(interceptors.ServerConfig{
		Outside: []grpc.UnaryServerInterceptor{c.intercept},
		Gate:    gate,
	},
		// The storefront knows which calls matter ...
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("/weir.demo.v1.StorefrontService/Buy")),
		interceptors.WithClassFor(admit.Sheddable, interceptors.Methods("/weir.demo.v1.StorefrontService/Browse")),
		// ... and passes their class on.
		interceptors.WithPropagation(trust),
		interceptors.WithRetriesBelow(),
	)
}

// nameOf returns the name of the service that a count belongs to.
func (s *shop) nameOf(c *count) string {
	switch c {
	case &s.storefront:
		return "storefront"
	case &s.orders:
		return "orders"
	}
	return "payments"
}

// ourselves believes the class of every caller. Only the other services can reach the
// services behind the storefront here. A real service would check the result of
// authentication, such as a client certificate.
func ourselves(context.Context) (admit.Class, bool) { return admit.Critical, true }

// standBack returns the function that makes a client's options. Without weir, the options
// are as they are often written, with a timeout for each of three tries. That is right for
// a packet that is lost now and then.
func (s *shop) standBack(timeout time.Duration) func() ([]grpc.DialOption, error) {
	if s.run == withWeir {
		return s.standBackWithWeir
	}
	return func() ([]grpc.DialOption, error) {
		return []grpc.DialOption{grpc.WithChainUnaryInterceptor(middleware.UnaryClientInterceptor(
			middleware.WithMax(3), middleware.WithPerRetryTimeout(timeout),
			middleware.WithCodes(codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded),
			middleware.WithBackoff(middleware.BackoffLinearWithJitter(20*time.Millisecond, 0.5)),
		))}, nil
	}
}

// standBackWithWeir makes a client of weir's.
func (s *shop) standBackWithWeir() ([]grpc.DialOption, error) {
	name := fmt.Sprint("hop ", len(s.server)+1)
	targets, err := throttle.New(throttle.Config{Name: name})
	if err != nil {
		return nil, err
	}
	circuits, err := breaker.New(breaker.Config{Name: name, OpenFor: time.Second})
	if err != nil {
		return nil, err
	}
	s.sources = append(s.sources, targets, circuits)
	return interceptors.Client(interceptors.ClientConfig{
		Propagate: true, DeadlineMargin: 10 * time.Millisecond,
		Throttle: targets,
		Breaker:  circuits,
		Retry:    &retry.Config{},
	})
}

// close stops the services without waiting for their calls.
func (s *shop) close() (err error) {
	s.backend.Close()
	for _, c := range s.conns {
		err = errors.Join(err, c.Close())
	}
	for _, server := range s.server {
		server.Stop()
	}
	s.served.Wait()
	return err
}
