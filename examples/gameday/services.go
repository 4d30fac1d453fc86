package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

const (
	// ownWork is the work of the storefront itself.
	ownWork = time.Millisecond
	// Payments can do 1600 calls a second. With slowPayment it can do 40.
	paymentWorkers = 8
	wellPayment    = 5 * time.Millisecond
	slowPayment    = 40 * wellPayment
	// kept is the memory that a browse keeps in the fault memory.
	kept = 512 << 10
	// every is the time between two elements of the feed.
	every = 20 * time.Millisecond
)

type storefront struct {
	demopb.UnimplementedStorefrontServiceServer
	demopb.UnimplementedStreamServiceServer
	*system

	payments demopb.PaymentsServiceClient
}

func (s *storefront) Buy(ctx context.Context, req *demopb.BuyRequest) (*demopb.BuyResponse, error) {
	time.Sleep(ownWork)
	if s.is(faultDeadlock) {
		// The plain client passes on neither the permit of this call nor its deadline, so the second call
		// waits for a permit while this one holds one.
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if _, err := s.plain.Browse(again, &demopb.BrowseRequest{}); err != nil {
			return nil, err
		}
	}
	_, err := s.payments.Charge(ctx, &demopb.ChargeRequest{Customer: req.GetCustomer()})
	return &demopb.BuyResponse{}, err
}

func (s *storefront) Browse(ctx context.Context, req *demopb.BrowseRequest) (*demopb.BrowseResponse, error) {
	time.Sleep(ownWork)
	if s.is(faultMemory) {
		s.keep(make([]byte, kept))
	}
	_, err := s.payments.Quote(ctx, &demopb.QuoteRequest{Customer: req.GetCustomer()})
	return &demopb.BrowseResponse{}, err
}

// keep is the leak. It writes to each page, so that the kernel has to provide it.
func (s *system) keep(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leak = append(s.leak, b)
}

// Subscribe sends an element every 20 ms, and never more than the subscriber asked for.
func (s *storefront) Subscribe(stream grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]) error {
	ctx := stream.Context()
	out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(s.feed))
	if err != nil {
		return err
	}
	for n := int64(1); ; n++ {
		if err := out.Send(ctx, &demopb.SubscribeResponse{Number: n}); err != nil {
			return err
		}
		if !sleep(ctx, every) {
			return ctx.Err()
		}
	}
}

type payments struct {
	demopb.UnimplementedPaymentsServiceServer
	*system
}

func (p *payments) Charge(ctx context.Context, _ *demopb.ChargeRequest) (*demopb.ChargeResponse, error) {
	return &demopb.ChargeResponse{}, p.serve(ctx)
}

func (p *payments) Quote(ctx context.Context, _ *demopb.QuoteRequest) (*demopb.QuoteResponse, error) {
	return &demopb.QuoteResponse{}, p.serve(ctx)
}

func (p *payments) serve(ctx context.Context) error {
	if p.failing.Load() {
		return status.Error(codes.Internal, "payments: its database is not there")
	}
	p.backend.Serve(ctx)
	return ctx.Err()
}
