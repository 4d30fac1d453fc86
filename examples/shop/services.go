package main

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/overload"
)

// ownWork is the time that the storefront and the orders service work on a call
// themselves.
const ownWork = time.Millisecond

// A count counts the calls of a service.
type count struct {
	arrived atomic.Int64
	held    atomic.Int64 // are there now
}

// intercept counts a call, outside of everything else.
func (c *count) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c.arrived.Add(1)
	c.held.Add(1)
	defer c.held.Add(-1)
	return handler(ctx, req)
}

type storefront struct {
	demopb.UnimplementedStorefrontServiceServer
	orders demopb.OrdersServiceClient
}

func (s *storefront) Buy(ctx context.Context, req *demopb.BuyRequest) (*demopb.BuyResponse, error) {
	time.Sleep(ownWork)
	_, err := s.orders.Place(ctx, &demopb.PlaceRequest{Customer: req.GetCustomer()})
	return &demopb.BuyResponse{}, err
}

func (s *storefront) Browse(ctx context.Context, req *demopb.BrowseRequest) (*demopb.BrowseResponse, error) {
	time.Sleep(ownWork)
	_, err := s.orders.Suggest(ctx, &demopb.SuggestRequest{Customer: req.GetCustomer()})
	return &demopb.BrowseResponse{}, err
}

type orders struct {
	demopb.UnimplementedOrdersServiceServer
	payments demopb.PaymentsServiceClient
}

func (o *orders) Place(ctx context.Context, req *demopb.PlaceRequest) (*demopb.PlaceResponse, error) {
	time.Sleep(ownWork)
	_, err := o.payments.Charge(ctx, &demopb.ChargeRequest{Customer: req.GetCustomer()})
	return &demopb.PlaceResponse{}, err
}

func (o *orders) Suggest(ctx context.Context, req *demopb.SuggestRequest) (*demopb.SuggestResponse, error) {
	time.Sleep(ownWork)
	_, err := o.payments.Quote(ctx, &demopb.QuoteRequest{Customer: req.GetCustomer()})
	return &demopb.SuggestResponse{}, err
}

// payments works on a few calls at once, in order, and finishes every call that it begins.
type payments struct {
	demopb.UnimplementedPaymentsServiceServer
	service *overload.Service
}

// The capacity of payments is 1600 calls a second when it is well, and 160 when it is slow.
const (
	paymentWorkers = 8
	wellWork       = 5 * time.Millisecond
	slowWork       = 10 * wellWork
)

func (p *payments) Charge(ctx context.Context, _ *demopb.ChargeRequest) (*demopb.ChargeResponse, error) {
	p.service.Serve(ctx)
	return &demopb.ChargeResponse{}, ctx.Err()
}

func (p *payments) Quote(ctx context.Context, _ *demopb.QuoteRequest) (*demopb.QuoteResponse, error) {
	p.service.Serve(ctx)
	return &demopb.QuoteResponse{}, ctx.Err()
}
