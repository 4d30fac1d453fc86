package streamcredit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// A stuck stream takes control, and no element before the stream ends.
type stuckStream struct{ grpc.ServerStream }

func (s stuckStream) SendMsg(m any) error {
	if e, ok := m.(*demopb.ConvertResponse); ok && e.GetCredit() == nil {
		<-s.Context().Done()
		return s.Context().Err()
	}
	return s.ServerStream.SendMsg(m)
}

// A handler whose reports wait behind a write that is stuck has consumed more than it could report. Finish
// does not call that unconsumed.
func TestFinishDoubtsReportsThatWereNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sent = 3
		stuck := func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, stuckStream{s})
		}
		client := handlers{convert: func(stream convertServer) error {
			both, _, err := streamcredit.Serve(stream)
			if err != nil {
				return err
			}
			go func() { _ = both.Out.Send(stream.Context(), &demopb.ConvertResponse{Number: 1}) }() // ends with the stream
			time.Sleep(time.Second)
			for range sent {
				if _, err := both.In.Recv(stream.Context()); err != nil {
					t.Errorf("Recv: got %v, want an element", err)
				}
			}
			return nil
		}}.start(t, grpctest.ServerOptions(grpc.StreamInterceptor(stuck)))
		both, err := streamcredit.Dial(t.Context(), client.Convert)
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		for n := range int64(sent) {
			if err := both.Out.Send(t.Context(), &demopb.ConvertRequest{Number: n}); err != nil {
				t.Fatal(err)
			}
		}
		err = both.Out.Finish(within(t, time.Hour))
		if left, ok := errors.AsType[*streamcredit.UnconsumedError](err); ok || both.Out.Consumed() == sent {
			t.Errorf("Finish: got %v with %d of %d reported consumed, want no UnconsumedError and fewer", left, both.Out.Consumed(), sent)
		}
	})
}
