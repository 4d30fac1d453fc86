package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A rogue is a server that writes whatever its input says, whatever it reads.
type rogue struct {
	shape

	input   []byte
	verdict error // what it read that it should not have
}

func (r *rogue) register(s grpc.ServiceRegistrar) {
	demopb.RegisterStreamServiceServer(s, handlers{convert: func(stream convertServer) error {
		return r.serve(&tramp{
			shape: r.shape,
			read: func() (*creditpb.Control, int, error) {
				m, err := stream.Recv()
				if err != nil || m.GetCredit() != nil && !m.GetCredit().GetWithData() {
					return m.GetCredit(), 0, err
				}
				return m.GetCredit(), 1, nil
			},
			write: func(ctl *creditpb.Control, data [][]byte) error {
				m := &demopb.ConvertResponse{Credit: ctl}
				if len(data) > 0 {
					m.Payload = data[0]
				}
				if ctl != nil {
					ctl.WithData = len(data) > 0
				}
				return stream.Send(m)
			},
		})
	}})
	creditpb.RegisterCreditStreamServer(s, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
		return r.serve(&tramp{
			shape: r.shape,
			read: func() (*creditpb.Control, int, error) {
				f, err := stream.Recv()
				if f.GetData() != nil {
					return f.GetPiggyback(), 1, err
				}
				return f.GetControl(), len(f.GetBatch().GetData()), err
			},
			write: func(ctl *creditpb.Control, data [][]byte) error {
				switch len(data) {
				case 0:
					return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: ctl}})
				case 1:
					return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Data{Data: data[0]}, Piggyback: ctl})
				}
				return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Batch{Batch: &creditpb.Batch{Data: data}}, Piggyback: ctl})
			},
		})
	}})
}

// serve plays the input. It then returns OK or an error, or waits until the client has gone.
func (r *rogue) serve(c *tramp) error {
	if _, _, err := c.read(); err != nil { // the client's Open
		return err
	}
	var reader sync.WaitGroup
	gone := make(chan struct{})
	reader.Go(func() { defer close(gone); r.verdict = r.watch(c) })
	c.play(r.input)
	switch {
	case !r.leaves():
		<-gone
	case len(r.input)%2 == 0:
		return nil
	}
	return status.Error(codes.Aborted, "the rogue has enough")
}

// watch reads until the call has ended. It returns an error if there was an element beyond the demand.
func (*rogue) watch(c *tramp) error {
	for got := int64(0); ; {
		_, elements, err := c.read()
		if err != nil {
			return nil // the end of the call
		}
		if got += int64(elements); got > c.asked.Load() {
			return fmt.Errorf("elements from the client: got %d, want at most the %d that were asked for", got, c.asked.Load())
		}
	}
}

// visit has an application of the client meet the rogue, and returns what went wrong. It runs in a bubble.
func (r *rogue) visit(t testing.TB) error {
	app := &victim{shape: r.shape}
	p := grpctest.Start(t, r.register)
	s, err := r.dial(t.Context(), p.Conn, app.options())
	if err != nil {
		return err
	}
	ctx := within(t, time.Hour)
	errs := make(chan error, 2)
	var both sync.WaitGroup
	if s.out != nil {
		both.Go(func() { errs <- app.send(ctx, s.out) })
	}
	if s.in != nil {
		both.Go(func() { errs <- app.receive(ctx, s.in) })
	}
	var input byte
	if len(r.input) > 0 {
		input = r.input[0]
	}
	meddle(ctx, s, input)
	closed := time.Now()
	_ = s.close() // the rogue decides what it returns
	if took := time.Since(closed); took > 2*time.Second {
		return fmt.Errorf("Close took %v, want it soon", took)
	}
	both.Wait()
	if took := time.Since(closed); took > 2*time.Second {
		return fmt.Errorf("Send and Recv ended %v after Close, want them to end soon", took)
	}
	close(errs)
	for err := range errs {
		if err == nil && s.in != nil && s.out == nil {
			return errors.New("Recv: got nothing and no end")
		}
	}
	return app.verdict
}

// meddle does what an application may do beside its Sends and Recvs, until after the rogue has played.
func meddle(ctx context.Context, s side, input byte) {
	for step := range 8 {
		time.Sleep(time.Duration(step*step*7) * time.Second)
		switch {
		case s.in != nil && input>>step&1 != 0 && step == 7:
			s.in.Cancel("enough")
		case s.in != nil && input>>step&1 != 0:
			short, cancel := context.WithTimeout(ctx, time.Minute)
			_, _ = s.in.Drain(short) // an error where demand is not manual
			cancel()
		case s.out != nil && input>>step&1 != 0:
			_, _ = s.out.try(1)
		}
	}
}

func (r *rogue) dial(ctx context.Context, conn grpc.ClientConnInterface, opts []streamcredit.DuplexOption) (side, error) {
	if r.embedded() {
		both, err := streamcredit.Dial(ctx, demopb.NewStreamServiceClient(conn).Convert, opts...)
		if err != nil {
			return side{}, err
		}
		return sideOf(both, func(n int64) *demopb.ConvertRequest { return &demopb.ConvertRequest{Number: n} },
			func(m *demopb.ConvertResponse) int64 { return int64(len(m.GetPayload())) }), nil
	}
	if !r.sends() {
		opts = append(opts, streamcredit.WithReceiveOnly())
	} else if !r.receives() {
		opts = append(opts, streamcredit.WithSendOnly())
	}
	both, err := streamcredit.DialFrames(ctx, creditpb.NewCreditStreamClient(conn).Channel, opts...)
	if err != nil {
		return side{}, err
	}
	return sideOf(both, toBytes, func(b []byte) int64 { return int64(len(b)) }), nil
}

// A client survives a server that keeps to no rule. It sends no more than was asked for, takes no more than it
// has asked for, and Close ends everything soon.
func TestHostileServers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &rogue{shape: shape(rapid.Byte().Draw(rt, "shape")), input: rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(rt, "input")}
		var err error
		synctest.Test(t, func(t *testing.T) { err = errors.Join(r.visit(t), nil) })
		if err == nil {
			err = r.verdict
		}
		if err != nil {
			rt.Fatalf("%08b %v: %v", r.shape, r.input, err)
		}
	})
}
