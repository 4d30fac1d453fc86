package streamcredit_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A loop is a client's stream without a transport. Recv returns the server's Open, and then the
// element as often as it was requested. Send takes everything.
type loop struct {
	grpc.ClientStream

	ctx    context.Context
	open   *demopb.SubscribeResponse
	event  *demopb.SubscribeResponse
	demand chan int64
	left   int64
}

func newLoop(open *creditpb.Open) *loop {
	return &loop{
		open:   &demopb.SubscribeResponse{Credit: helloFrom(open)},
		event:  &demopb.SubscribeResponse{Payload: make([]byte, 64)},
		demand: make(chan int64, 1024), // more than a window has grants
	}
}

func (l *loop) dial(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error) {
	l.ctx = ctx
	return l, nil
}

func (l *loop) Context() context.Context { return l.ctx }
func (*loop) CloseSend() error           { return nil }

func (l *loop) Send(m *demopb.SubscribeRequest) error {
	if n := m.GetCredit().GetOpen().GetInitial().GetN() + m.GetCredit().GetRequest().GetN(); n > 0 {
		l.demand <- n
	}
	return nil
}

func (l *loop) Recv() (*demopb.SubscribeResponse, error) {
	if open := l.open; open != nil {
		l.open = nil
		return open, nil
	}
	for l.left == 0 {
		select {
		case l.left = <-l.demand:
		case <-l.ctx.Done():
			return nil, l.ctx.Err()
		}
	}
	l.left--
	return l.event, nil
}

// BenchmarkCost is the cost that weir adds to an element, without gRPC. It is exact where the
// ratios of BenchmarkRatio are lost in the noise.
func BenchmarkCost(b *testing.B) {
	b.Run("receive", func(b *testing.B) {
		in, err := streamcredit.DialReceive(b.Context(), newLoop(&creditpb.Open{WillSend: true}).dial, streamcredit.WithWindow(4096))
		if err != nil {
			b.Fatal(err)
		}
		defer in.Close()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := in.Recv(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("send", func(b *testing.B) {
		l := newLoop(&creditpb.Open{WillReceive: true, Initial: &creditpb.Request{N: 1 << 60}})
		out, err := streamcredit.DialSend(b.Context(), l.dial)
		if err != nil {
			b.Fatal(err)
		}
		e := &demopb.SubscribeRequest{Count: 1}
		b.ReportAllocs()
		for b.Loop() {
			if err := out.Send(b.Context(), e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
