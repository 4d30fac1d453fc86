package streamcredit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// late is a client's stream that learns of its end a second late.
type late struct{ grpc.ClientStream }

func (l late) RecvMsg(m any) error {
	err := l.ClientStream.RecvMsg(m)
	if err != nil {
		time.Sleep(time.Second)
	}
	return err
}

// An element whose Send has failed counts as not sent, although the client did not know yet, when it wrote the
// element, that the call had ended.
func TestFinishCountsWhatSendHasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sent, taken = 5, 2
		client := handlers{upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(64))
			if err != nil {
				return err
			}
			time.Sleep(time.Second) // so that all have arrived
			take(t, uploadIn(in), 1, taken)
			return nil
		}}.start(t, grpctest.DialOptions(grpc.WithStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			stream, err := streamer(ctx, desc, cc, method, opts...)
			return late{stream}, err
		})))
		sender, err := streamcredit.DialSend(t.Context(), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		out := uploadOut(sender)
		sendAll(t, out, 1, sent)
		time.Sleep(1500 * time.Millisecond) // the call has ended, and the client does not know
		if err := out.send(within(t, time.Minute), sent+1); err == nil {
			t.Fatal("Send after the end of the call: got no error")
		}
		err = out.Finish(within(t, time.Minute))
		if left, ok := errors.AsType[*streamcredit.UnconsumedError](err); !ok || *left != (streamcredit.UnconsumedError{Sent: sent, Consumed: taken}) {
			t.Errorf("Finish: got %v, want %d of %d consumed", err, taken, sent)
		}
	})
}
