package main

import (
	"context"
	"sync"
	"time"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/streamcredit"
)

// These are the calls of customers a second, and their patience.
const (
	buys     = 80
	browses  = 40
	patience = time.Second
	// window is how many elements the subscriber asks for ahead.
	window = 16
)

// load lets customers and messages come, and one subscriber follow the feed, for d or until ctx ends. stop waits for
// them, and returns the error of the consumer.
func (s *system) load(ctx context.Context, d time.Duration, seed uint64) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var people sync.WaitGroup
	customers := func(rate float64, call func(context.Context) error, seed uint64) {
		l := &overload.Load{Rate: rate, Patience: patience, Call: call, Seed: seed}
		people.Go(func() { l.Run(ctx, d) })
	}
	customers(buys, func(ctx context.Context) error {
		_, err := s.plain.Buy(ctx, &demopb.BuyRequest{})
		return err
	}, seed)
	customers(browses, func(ctx context.Context) error {
		_, err := s.plain.Browse(ctx, &demopb.BrowseRequest{})
		return err
	}, seed+1)
	people.Go(func() { s.follow(ctx) })
	people.Go(func() { s.consumed <- s.consume(ctx) })
	return func() error {
		cancel()
		people.Wait()
		return <-s.consumed
	}
}

// follow reads the feed until ctx ends, and subscribes again if it breaks.
func (s *system) follow(ctx context.Context) {
	for {
		in, err := streamcredit.DialReceive(ctx, s.followers.Subscribe,
			streamcredit.WithWindow(window), streamcredit.WithMeter(s.readers), streamcredit.WithSetup(&demopb.SubscribeRequest{}))
		for err == nil {
			if s.is(faultStream) {
				<-ctx.Done() // it reads no more
			}
			_, err = in.Recv(ctx)
		}
		if in != nil {
			_ = in.Close()
		}
		if !sleep(ctx, time.Second) {
			return
		}
	}
}
