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

// A refusal lets one call of SendMsg fail, like an interceptor that does not like a message. The
// stream does not end by it.
type refusal struct{ mine }

func (r *refusal) pass() error {
	if r.left.Add(-1) == 0 {
		return errRefused
	}
	return nil
}

type (
	refusingServer struct {
		grpc.ServerStream

		refusal *refusal
	}
	refusingClient struct {
		grpc.ClientStream

		refusal *refusal
	}
)

func (s refusingServer) SendMsg(m any) error {
	if err := s.refusal.pass(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s refusingClient) SendMsg(m any) error {
	if err := s.refusal.pass(); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(m)
}

// withRefusal are the options of a connection with r in what both ends send.
func withRefusal(r *refusal) []grpctest.Option {
	return wrapped(
		func(cs grpc.ClientStream) grpc.ClientStream { return refusingClient{cs, r} },
		func(ss grpc.ServerStream) grpc.ServerStream { return refusingServer{ss, r} },
	)
}

// A Request that an interceptor refuses is lost, so the stream ends. Neither end waits for ever.
func TestARequestThatIsRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		r := &refusal{}
		e := connect(t, k, nil, nil, withRefusal(r)...)
		out, in := e.down()
		sendAll(t, out, 1, 64)
		synctest.Wait()
		r.left.Store(1)
		var err error
		for n := 0; err == nil && n < 64; n++ {
			_, err = in.recv(within(t, time.Minute))
			synctest.Wait()
		}
		if r.left.Load() > 0 {
			t.Fatal("the receiver has written nothing, want a Request or a report")
		}
		for err == nil {
			_, err = in.recv(within(t, time.Hour))
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Recv: got %v, want the error of the stream", err)
		}
	})
}

// An Open that a client's interceptor refuses ends the stream at once.
func TestAnOpenThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &refusal{}
		r.left.Store(1)
		client := handlers{subscribe: func(stream subscribeServer) error {
			_, _, err := streamcredit.ServeSend(stream)
			return err
		}}.start(t, withRefusal(r)...)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := in.Recv(within(t, time.Second)); !errors.Is(err, errRefused) {
			t.Errorf("Recv: got %v, want %v", err, errRefused)
		}
	})
}

// A Complete that an interceptor refuses is lost, so the stream ends. Its sender does not take the
// end for a proper one.
func TestACompleteThatIsRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		r := &refusal{}
		out, _ := connect(t, k, nil, nil, withRefusal(r)...).down()
		sendAll(t, out, 1, 3)
		synctest.Wait()
		r.left.Store(1)
		first := out.Close()
		if r.left.Load() > 0 {
			return // a half-close takes its place
		}
		if first == nil {
			t.Error("Close: got no error, want the one of the message that was not sent")
		}
		if err := out.Finish(within(t, time.Minute)); !errors.Is(err, errRefused) {
			t.Errorf("Finish: got %v, want %v", err, errRefused)
		}
	})
}
