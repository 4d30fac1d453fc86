package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"sync"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
)

// A wireClient is an adapter for a wireServer. It reconnects with each Fetch that finds
// no connection.
type wireClient struct {
	consumer brokertest.Consumer
	faults   faults

	mu  sync.Mutex
	rpc *rpc.Client
}

// pollWait is how long the server holds a Fetch of an empty queue.
const pollWait = time.Second

// silent is how long an answer may be late before the connection is given up.
const silent = 8 * time.Second

// openWire returns the source of an adapter with the given faults.
func openWire(_ context.Context, c brokertest.Consumer, f faults) (broker.Source, error) {
	w := &wireClient{consumer: c, faults: f}
	config := broker.SourceConfig{ExtendEvery: max(c.AckTimeout/4, 20*time.Millisecond)}
	if f.config != nil {
		f.config(&config)
	}
	var fetcher broker.Fetcher = w
	if f.fetcher != nil {
		fetcher = f.fetcher(w)
	}
	source, err := broker.NewSource(fetcher, config)
	if err == nil && f.source != nil {
		source = f.source(w, source)
	}
	return source, err
}

// connect returns the connection, and makes a new one if there is none.
func (w *wireClient) connect() (*rpc.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rpc != nil {
		return w.rpc, nil
	}
	c, err := rpc.Dial("tcp", w.consumer.Addr)
	w.rpc = c
	return c, err
}

// lost forgets a connection that has failed.
func (w *wireClient) lost(c *rpc.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rpc == c {
		w.rpc = nil
	}
	_ = c.Close()
}

func (w *wireClient) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	c, err := w.connect()
	if err != nil {
		return nil, err
	}
	wait := pollWait
	if w.faults.pollWait > 0 {
		wait = w.faults.pollWait
	}
	var got []WireMessage
	if !w.faults.patient {
		late := time.AfterFunc(wait+silent, func() { w.lost(c) })
		defer late.Stop()
	}
	call := c.Go("Wire.Fetch", WireFetch{Queue: w.consumer.Queue, N: n, Wait: wait}, &got, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		c.Go("Wire.Cancel", 0, new(int), make(chan *rpc.Call, 1))
		<-call.Done
	}
	if call.Error != nil {
		w.lost(c)
		return nil, call.Error
	}
	msgs := make([]*broker.Message, 0, len(got))
	for _, m := range got {
		var s broker.Settler = &wireSettler{c, m.Tag}
		if w.faults.settler != nil {
			s = w.faults.settler(w, s)
		}
		if w.faults.message != nil {
			w.faults.message(&m.Message)
		}
		msgs = append(msgs, broker.NewMessage(m.Message, s))
	}
	return msgs, nil
}

func (w *wireClient) Close(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rpc == nil || w.faults.keepConnection {
		return nil
	}
	return w.rpc.Close()
}

// A wireSettler settles by the connection that has brought the message. If that is lost,
// so is the message.
type wireSettler struct {
	rpc *rpc.Client
	tag int
}

func (s *wireSettler) tell(ctx context.Context, how, reason string) error {
	call := s.rpc.Go("Wire.Settle", WireSettle{s.tag, how, reason}, new(int), make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return ctx.Err()
	}
	var fromServer rpc.ServerError
	switch {
	case call.Error == nil:
		return nil
	case errors.As(call.Error, &fromServer) && string(fromServer) != broker.ErrSettled.Error():
		return call.Error
	default: // settled, or given back by the end of the connection
		return fmt.Errorf("%w (%v)", broker.ErrSettled, call.Error)
	}
}

func (s *wireSettler) Ack(ctx context.Context) error     { return s.tell(ctx, "ack", "") }
func (s *wireSettler) Requeue(ctx context.Context) error { return s.tell(ctx, "requeue", "") }
func (s *wireSettler) Extend(ctx context.Context) error  { return s.tell(ctx, "extend", "") }
func (s *wireSettler) DeadLetter(ctx context.Context, reason string) error {
	return s.tell(ctx, "dead", reason)
}
