package streamcredit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// verbatim is a codec of messages that are encoded already.
type verbatim struct{}

func (verbatim) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (verbatim) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (verbatim) Name() string { return "proto" }

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// poisoned calls a handler that receives, and sends it as many elements as there are in good,
// and then bad, which it cannot receive.
func poisoned(t *testing.T, k kind, elements int, bad []byte, handle func(s side, stream grpc.ServerStream) error) {
	t.Helper()
	open := &creditpb.Open{Features: allFeatures, WillSend: true, WillReceive: k.duplex()}
	method, hello := "/weir.credit.v1.CreditStream/Channel", encode(t, &creditpb.Frame{Body: &creditpb.Frame_Control{Control: helloFrom(open)}})
	element := func(n int64) []byte {
		return encode(t, &creditpb.Frame{Body: &creditpb.Frame_Data{Data: toBytes(n)}})
	}
	switch k {
	case uploads:
		method, hello = demopb.StreamService_Upload_FullMethodName, encode(t, &demopb.UploadRequest{Credit: helloFrom(open)})
		element = func(n int64) []byte { return encode(t, &demopb.UploadRequest{Number: n}) }
	case converts:
		method, hello = demopb.StreamService_Convert_FullMethodName, encode(t, &demopb.ConvertRequest{Credit: helloFrom(open)})
		element = func(n int64) []byte { return encode(t, &demopb.ConvertRequest{Number: n}) }
	default:
	}
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, handlers{
			upload: func(stream uploadServer) error {
				in, _, err := streamcredit.ServeReceive(stream)
				if err != nil {
					return err
				}
				return handle(side{in: uploadIn(in)}, stream)
			},
			convert: func(stream convertServer) error {
				both, _, err := streamcredit.Serve(stream)
				if err != nil {
					return err
				}
				return handle(sideOf(both, func(n int64) *demopb.ConvertResponse { return &demopb.ConvertResponse{Number: n} },
					(*demopb.ConvertRequest).GetNumber), stream)
			},
		})
		creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, _, err := streamcredit.ServeFrames(stream, k.role(true)...)
			if err != nil {
				return err
			}
			return handle(sideOf(both, toBytes, fromBytes), stream)
		}})
	}, grpctest.ServerOptions(grpc.MaxRecvMsgSize(16<<10)))
	stream, err := p.Conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodecV2(verbatim{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(hello); err != nil {
		t.Fatalf("Send of Open: got %v, want no error", err)
	}
	var answer []byte
	if err := stream.RecvMsg(&answer); err != nil {
		t.Fatalf("the server's Open: got %v, want no error", err)
	}
	var messages [][]byte
	for n := range elements {
		messages = append(messages, element(int64(n+1)))
	}
	for _, m := range append(messages, bad) {
		if err := stream.SendMsg(m); err != nil {
			t.Fatalf("Send: got %v, want no error", err)
		}
	}
	for err == nil {
		var m []byte
		err = stream.RecvMsg(&m)
	}
}

// A message that cannot be received takes nothing of what came before it, and its error is
// what a handler learns, whichever context it waits with.
func TestElementsBeforeAnUnreadableMessage(t *testing.T) {
	for name, c := range map[string]struct {
		bad  []byte
		want codes.Code
	}{
		"too large":   {make([]byte, 17<<10), codes.ResourceExhausted},
		"undecodable": {[]byte{0xff}, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			for _, elements := range []int{0, 4, 60} {
				eachKind(t, func(t *testing.T, k kind) {
					if k == subscribes || k == framesDown {
						t.Skip("the server does not receive there")
					}
					poisoned(t, k, elements, c.bad, func(s side, stream grpc.ServerStream) error {
						time.Sleep(time.Minute) // it is busy
						take := func(want int64) {
							if n, err := s.in.recv(stream.Context()); err != nil || n != want {
								t.Errorf("Recv: got %d, %v; want %d", n, err, want)
							}
						}
						for n := range elements {
							take(int64(n + 1))
						}
						_, err := s.in.recv(stream.Context())
						if status.Code(err) != c.want {
							t.Errorf("Recv after %d elements: got %v, want %v", elements, err, c.want)
						}
						if s.out != nil {
							if err := s.out.send(stream.Context(), 1); status.Code(err) != c.want {
								t.Errorf("Send: got %v, want %v", err, c.want)
							}
							if err := s.out.Finish(stream.Context()); status.Code(err) != c.want {
								t.Errorf("Finish: got %v, want %v", err, c.want)
							}
						}
						return err
					})
				})
			}
		})
	}
}

// A handler that waits when it happens learns the same.
func TestWaitingForAnUnreadableMessage(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k == subscribes || k == framesDown {
			t.Skip("the server does not receive there")
		}
		poisoned(t, k, 4, make([]byte, 17<<10), func(s side, stream grpc.ServerStream) error {
			n := int64(0)
			var last error
			s.in.all(stream.Context(), func(e int64, err error) bool {
				if last = err; err == nil {
					n = e
				}
				return true
			})
			if n != 4 || status.Code(last) != codes.ResourceExhausted {
				t.Errorf("All: got %d elements and %v, want 4 and %v", n, last, codes.ResourceExhausted)
			}
			return last
		})
	})
}

// What a handler leaves unread then does not stay in the budget.
func TestTheBudgetAfterAnUnreadableMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget, err := streamcredit.NewBudget(streamcredit.BudgetConfig{Messages: 100})
		if err != nil {
			t.Fatal(err)
		}
		client := handlers{upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithBudget(budget), streamcredit.WithWindow(10))
			if err != nil {
				return err
			}
			time.Sleep(time.Second)
			_, err = in.Recv(stream.Context())
			return err
		}}.start(t, grpctest.ServerOptions(grpc.MaxRecvMsgSize(16<<10)))
		out, err := streamcredit.DialSend(t.Context(), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			e := &demopb.UploadRequest{Number: int64(n)}
			if n == 4 {
				e.Payload = make([]byte, 17<<10)
			}
			if err := out.Send(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Finish(t.Context()); status.Code(err) != codes.ResourceExhausted && !errors.Is(err, streamcredit.ErrCanceled) {
			t.Errorf("Finish: got %v, want %v", err, codes.ResourceExhausted)
		}
		synctest.Wait()
		if s := budget.Stats(); s != (streamcredit.BudgetStats{}) {
			t.Errorf("the budget: got %+v, want it empty", s)
		}
	})
}
