package streamcredit_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// An outlet is a Sender whose elements are numbers, whatever carries them.
type outlet interface {
	send(ctx context.Context, n int64) error
	try(n int64) (bool, error)

	WaitCredit(ctx context.Context) error
	Credit() int64
	Consumed() uint64
	WaitConsumed(ctx context.Context, n uint64) error
	Done() <-chan struct{}
	Close() error
	CloseGoingAway() error
	CloseWithError(err error) error
	Finish(ctx context.Context) error
	Stats() streamcredit.SenderStats
}

// An inlet is a Receiver of them.
type inlet interface {
	recv(ctx context.Context) (int64, error)
	all(ctx context.Context, body func(n int64, err error) bool)

	Request(n int64) error
	Drain(ctx context.Context) (int64, error)
	Consume(n int) error
	Cancel(reason string)
	Close() error
	Stats() streamcredit.ReceiverStats
}

type outOf[T any] struct {
	*streamcredit.Sender[T]

	wrap func(int64) T
}

func (o outOf[T]) send(ctx context.Context, n int64) error { return o.Send(ctx, o.wrap(n)) }
func (o outOf[T]) try(n int64) (bool, error)               { return o.TrySend(o.wrap(n)) }

type inOf[T any] struct {
	*streamcredit.Receiver[T]

	number func(T) int64
}

func (i inOf[T]) recv(ctx context.Context) (int64, error) {
	e, err := i.Recv(ctx)
	if err != nil {
		return 0, err
	}
	return i.number(e), nil
}

func (i inOf[T]) all(ctx context.Context, body func(int64, error) bool) {
	for e, err := range i.All(ctx) {
		n := int64(0)
		if err == nil {
			n = i.number(e)
		}
		if !body(n, err) {
			return
		}
	}
}

// A side is one end of a stream. What it does not do is nil.
type side struct {
	out   outlet
	in    inlet
	close func() error // of a Duplex
}

func sideOf[O, I any](d *streamcredit.Duplex[O, I], wrap func(int64) O, number func(I) int64) side {
	s := side{close: d.Close}
	if d.Out != nil {
		s.out = outOf[O]{d.Out, wrap}
	}
	if d.In != nil {
		s.in = inOf[I]{d.In, number}
	}
	return s
}

func subscribeOut(s *streamcredit.Sender[*demopb.SubscribeResponse]) outlet {
	return outOf[*demopb.SubscribeResponse]{s, func(n int64) *demopb.SubscribeResponse { return event(int(n)) }}
}

func subscribeIn(r *streamcredit.Receiver[*demopb.SubscribeResponse]) inlet {
	return inOf[*demopb.SubscribeResponse]{r, (*demopb.SubscribeResponse).GetNumber}
}

func uploadOut(s *streamcredit.Sender[*demopb.UploadRequest]) outlet {
	return outOf[*demopb.UploadRequest]{s, func(n int64) *demopb.UploadRequest { return &demopb.UploadRequest{Number: n} }}
}

func uploadIn(r *streamcredit.Receiver[*demopb.UploadRequest]) inlet {
	return inOf[*demopb.UploadRequest]{r, (*demopb.UploadRequest).GetNumber}
}

func toBytes(n int64) []byte   { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
func fromBytes(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// A kind is a way in which a stream can carry elements.
type kind int

const (
	subscribes    kind = iota // the server sends
	uploads                   // the client sends
	converts                  // both do
	framesBoth                // the same as Frames
	framesDown                // Frames from the server
	framesUp                  // Frames from the client
	numberOfKinds int  = iota
)

func (k kind) framed() bool { return k >= framesBoth }
func (k kind) duplex() bool { return k == converts || k == framesBoth }

// ends are the two ends of one stream. The handler returns what is put into leave, which
// may be closed.
type ends struct {
	client, server side

	ctx    context.Context // the client's
	cancel context.CancelFunc
	leave  chan error
	left   chan struct{} // closed when the handler has returned
}

// only returns the options that a constructor of one direction takes.
func only[P any](opts []streamcredit.DuplexOption) (some []P) {
	for _, o := range opts {
		if p, ok := o.(P); ok {
			some = append(some, p)
		}
	}
	return some
}

// connect opens a stream in memory. At the end of the test it ends, if it has not before.
func connect(t testing.TB, k kind, client, server []streamcredit.DuplexOption, opts ...grpctest.Option) *ends {
	t.Helper()
	return connectOver(t, k, client, server, func(p *grpctest.Pair) *grpc.ClientConn { return p.Conn }, opts...)
}

// connectOver is connect over the connection that dial returns.
func connectOver(t testing.TB, k kind, client, server []streamcredit.DuplexOption, dial func(p *grpctest.Pair) *grpc.ClientConn, opts ...grpctest.Option) *ends {
	t.Helper()
	e := &ends{leave: make(chan error, 1), left: make(chan struct{})}
	served := make(chan error, 1)
	handle := func(s side, err error) error {
		defer close(e.left)
		e.server = s
		served <- err
		if err != nil {
			return err
		}
		return <-e.leave
	}
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { e.register(r, k, server, handle) }, opts...)
	e.ctx, e.cancel = context.WithCancel(t.Context())
	t.Cleanup(e.end)
	if err := e.dial(dial(p), k, client); err != nil {
		t.Fatalf("dial: got %v, want no error", err)
	}
	if err := <-served; err != nil {
		t.Fatalf("serve: got %v, want no error", err)
	}
	return e
}

// end ends the stream, by the client's hand if nothing else.
func (e *ends) end() {
	e.cancel()
	select {
	case e.leave <- nil:
	default: // it has left, or is told to
	}
}

func (*ends) register(r grpc.ServiceRegistrar, k kind, opts []streamcredit.DuplexOption, handle func(side, error) error) {
	demopb.RegisterStreamServiceServer(r, handlers{
		subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, only[streamcredit.SendOption](opts)...)
			return handle(side{out: subscribeOut(out)}, err)
		},
		upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(stream, only[streamcredit.ReceiveOption](opts)...)
			return handle(side{in: uploadIn(in)}, err)
		},
		convert: func(stream convertServer) error {
			both, _, err := streamcredit.Serve(stream, opts...)
			if err != nil {
				return handle(side{}, err)
			}
			return handle(sideOf(both, func(n int64) *demopb.ConvertResponse { return &demopb.ConvertResponse{Number: n} },
				(*demopb.ConvertRequest).GetNumber), nil)
		},
	})
	creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
		both, _, err := streamcredit.ServeFrames(stream, append(k.role(true), opts...)...)
		if err != nil {
			return handle(side{}, err)
		}
		return handle(sideOf(both, toBytes, fromBytes), nil)
	}})
}

// role is what an end of a stream of Frames does.
func (k kind) role(server bool) []streamcredit.DuplexOption {
	switch {
	case k == framesBoth:
		return nil
	case server == (k == framesDown):
		return []streamcredit.DuplexOption{streamcredit.WithSendOnly()}
	default:
		return []streamcredit.DuplexOption{streamcredit.WithReceiveOnly()}
	}
}

func (e *ends) dial(conn grpc.ClientConnInterface, k kind, opts []streamcredit.DuplexOption) error {
	client := demopb.NewStreamServiceClient(conn)
	switch k {
	case subscribes:
		in, err := streamcredit.DialReceive(e.ctx, client.Subscribe, only[streamcredit.ReceiveOption](opts)...)
		if err != nil {
			return err
		}
		e.client = side{in: subscribeIn(in)}
	case uploads:
		out, err := streamcredit.DialSend(e.ctx, client.Upload, only[streamcredit.SendOption](opts)...)
		if err != nil {
			return err
		}
		e.client = side{out: uploadOut(out)}
	case converts:
		both, err := streamcredit.Dial(e.ctx, client.Convert, opts...)
		if err != nil {
			return err
		}
		e.client = sideOf(both, func(n int64) *demopb.ConvertRequest { return &demopb.ConvertRequest{Number: n} },
			(*demopb.ConvertResponse).GetNumber)
	default:
		both, err := streamcredit.DialFrames(e.ctx, creditpb.NewCreditStreamClient(conn).Channel, append(k.role(false), opts...)...)
		if err != nil {
			return err
		}
		e.client = sideOf(both, toBytes, fromBytes)
	}
	return nil
}

// down returns the direction from the server, or, where there is none, that from the client.
func (e *ends) down() (outlet, inlet) {
	if e.server.out != nil {
		return e.server.out, e.client.in
	}
	return e.client.out, e.server.in
}

// within bounds a wait of a bubble's test, so that one that is in vain says so.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
