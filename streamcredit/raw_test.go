package streamcredit_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A rawReceiver is a client of a stream of Frames that shares no code with the package. It
// asks for what it is told to and reports nothing.
type rawReceiver struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[creditpb.Frame, creditpb.Frame]
}

// receiveRaw opens a stream to a handler that sends, with o as the client's Open.
func receiveRaw(t *testing.T, handle func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error, o *creditpb.Open, opts ...grpctest.Option) *rawReceiver {
	t.Helper()
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { creditpb.RegisterCreditStreamServer(r, frames{channel: handle}) }, opts...)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := creditpb.NewCreditStreamClient(p.Conn).Channel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o.WillReceive = true
	r := &rawReceiver{t: t, stream: stream}
	r.say(&creditpb.Control{Kind: &creditpb.Control_Open{Open: o}})
	return r
}

func (r *rawReceiver) say(c *creditpb.Control) {
	r.t.Helper()
	if err := r.stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: c}}); err != nil {
		r.t.Fatalf("Send of %v: got %v, want no error", c, err)
	}
}

// recv returns the next message and the number of its elements.
func (r *rawReceiver) recv() (f *creditpb.Frame, elements int, err error) {
	f, err = r.stream.Recv()
	switch body := f.GetBody().(type) {
	case *creditpb.Frame_Data:
		elements = 1
	case *creditpb.Frame_Batch:
		elements = len(body.Batch.GetData())
	}
	return f, elements, err
}

// elements reads until so many elements have arrived.
func (r *rawReceiver) elements(want int) {
	r.t.Helper()
	for got := 0; got < want; {
		_, n, err := r.recv()
		if err != nil {
			r.t.Fatalf("after %d elements: got %v, want %d elements", got, err, want)
		}
		got += n
	}
}
