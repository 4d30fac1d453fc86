package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A shape says what stands against each other: eight bits.
type shape byte

func (s shape) sends() bool    { return s&3 != 1 }      // the server does
func (s shape) receives() bool { return s&3 != 0 }      // likewise
func (s shape) embedded() bool { return s&3 == 3 }      // not in Frames
func (s shape) manual() bool   { return s&4 != 0 }      // the server's demand
func (s shape) bounded() bool  { return s&8 != 0 }      // both bound bytes
func (s shape) beating() bool  { return s&16 != 0 }     // both want heartbeats
func (s shape) strange() bool  { return s&32 != 0 }     // there is no proper Open
func (s shape) leaves() bool   { return s&128 != 0 }    // the client cancels the call, and does not half-close
func (s shape) initial() int64 { return int64(s & 64) } // the client's

// A tramp is a client that writes whatever it likes, and counts.
type tramp struct {
	shape

	write func(c *creditpb.Control, data [][]byte) error
	read  func() (c *creditpb.Control, elements int, err error)
	half  func() error

	asked atomic.Int64 // as much as ever; saturates
	sent  uint64       // elements
}

// hostileWindow is what a server with a window holds, at most.
const hostileWindow = 4

// playFrames has a tramp write what the input says to a server that follows the protocol,
// and returns what the server did wrong. It runs in a bubble.
func playFrames(t testing.TB, s shape, input []byte) error {
	app := &victim{shape: s, over: make(chan struct{})}
	pair := grpctest.Start(t, app.register)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	c := &tramp{shape: s}
	if err := c.dial(ctx, pair.Conn); err != nil {
		return err
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		c.play(input)
		if s.leaves() {
			cancel()
		}
		_ = c.half() // the end of the call, if it has ended, is seen by read
	})
	err := c.watch()
	writer.Wait()
	if hung := ctx.Err(); errors.Is(hung, context.DeadlineExceeded) {
		return errors.New("the end of the call: got none within an hour, want one")
	}
	cancel()
	<-app.over
	if err == nil {
		err = app.verdict
	}
	return err
}

// watch reads until the call has ended, and says what is wrong with what was read.
func (c *tramp) watch() error {
	var got, total int64
	done := false
	for {
		ctl, elements, err := c.read()
		if err != nil {
			return c.judge(err)
		}
		if got += int64(elements); got > c.asked.Load() {
			return fmt.Errorf("elements from the server: got %d, want at most the %d that were asked for", got, c.asked.Load())
		}
		switch k := ctl.GetKind().(type) {
		case *creditpb.Control_Complete:
			if total = int64(k.Complete.GetTotal()); total != got || done {
				return fmt.Errorf("Complete: got total %d after %d elements and a terminal %t, want these and none", total, got, done)
			}
			done = true
		case *creditpb.Control_Drained:
			if done || int64(k.Drained.GetSent()) != got || k.Drained.GetBurned() < 0 || k.Drained.GetBurned() > c.asked.Load() {
				return fmt.Errorf("Drained: got %v after %d elements and a terminal %t", k.Drained, got, done)
			}
		}
		if done && elements > 0 {
			return errors.New("after Complete: got an element, want nothing")
		}
	}
}

// judge says what is wrong with the status of the call.
func (c *tramp) judge(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != "weir" || streamcredit.Reason(info.GetReason()).Code() != st.Code() || st.Code() == codes.Unknown {
			return fmt.Errorf("status: got %v with %v, want a violation of the table", st, d)
		}
		return nil
	}
	if st.Code() == codes.Canceled && c.leaves() {
		return nil
	}
	return fmt.Errorf("status: got %w, want OK or a violation", err)
}

func (c *tramp) dial(ctx context.Context, conn grpc.ClientConnInterface) error {
	if c.embedded() {
		stream, err := demopb.NewStreamServiceClient(conn).Convert(ctx)
		if err != nil {
			return err
		}
		c.half = stream.CloseSend
		c.read = func() (*creditpb.Control, int, error) {
			m, err := stream.Recv()
			if err != nil || m.GetCredit() != nil && !m.GetCredit().GetWithData() {
				return m.GetCredit(), 0, err
			}
			return m.GetCredit(), 1, nil
		}
		c.write = func(ctl *creditpb.Control, data [][]byte) error {
			if len(data) == 0 {
				return stream.Send(&demopb.ConvertRequest{Credit: ctl})
			}
			if ctl != nil {
				ctl.WithData = true
			}
			for _, b := range data {
				if err := stream.Send(&demopb.ConvertRequest{Payload: b, Credit: ctl}); err != nil {
					return err
				}
				ctl = nil
			}
			return nil
		}
		return nil
	}
	stream, err := creditpb.NewCreditStreamClient(conn).Channel(ctx)
	if err != nil {
		return err
	}
	c.half = stream.CloseSend
	c.read = func() (*creditpb.Control, int, error) {
		f, err := stream.Recv()
		switch body := f.GetBody().(type) {
		case *creditpb.Frame_Control:
			return body.Control, 0, err
		case *creditpb.Frame_Data:
			return f.GetPiggyback(), 1, err
		}
		return f.GetPiggyback(), len(f.GetBatch().GetData()), err
	}
	c.write = func(ctl *creditpb.Control, data [][]byte) error {
		switch len(data) {
		case 0:
			return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: ctl}})
		case 1:
			return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Data{Data: data[0]}, Piggyback: ctl})
		}
		return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Batch{Batch: &creditpb.Batch{Data: data}}, Piggyback: ctl})
	}
	return nil
}

func (c *tramp) play(input []byte) {
	if !c.strange() {
		_ = c.write(c.count(c.open()), nil)
	}
	slept := time.Duration(0)
	for i := 0; i+1 < len(input); i += 2 {
		what, arg := input[i], input[i+1]
		switch what % 16 {
		case 0:
			c.elements(nil, 1, int(arg))
		case 1:
			c.elements(nil, int(arg%8), int(arg))
		case 2:
			c.elements(c.control(arg, what), 1, 10)
		case 3:
			d := time.Duration(arg) * time.Duration(arg) * time.Millisecond // to more than a minute
			if slept += d; slept < time.Hour/2 {
				time.Sleep(d)
			}
		case 4:
			for range int(arg) * 8 {
				if c.write(c.count(request(1, 0, false)), nil) != nil {
					break
				}
			}
		default:
			_ = c.write(c.count(c.control(what, arg)), nil)
		}
	}
}

func (c *tramp) elements(ctl *creditpb.Control, n, size int) {
	if !c.receives() && size%8 != 0 {
		n = 0 // what ends it at once is rare
	}
	data := make([][]byte, n)
	for i := range data {
		data[i] = make([]byte, size)
	}
	c.sent += uint64(n)
	_ = c.write(c.count(ctl), data)
}

// count adds what ctl asks for.
func (c *tramp) count(ctl *creditpb.Control) *creditpb.Control {
	n := max(0, ctl.GetRequest().GetN(), ctl.GetOpen().GetInitial().GetN())
	if before := c.asked.Load(); n > math.MaxInt64-before {
		c.asked.Store(math.MaxInt64)
	} else {
		c.asked.Store(before + n)
	}
	return ctl
}

func request(n int64, consumed uint64, drain bool) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Request{Request: &creditpb.Request{N: n, Consumed: consumed, Drain: drain}}}
}

// open is a proper one.
func (c *tramp) open() *creditpb.Control {
	o := &creditpb.Open{WillReceive: c.sends(), WillSend: c.receives(), Features: []creditpb.Feature{1, 2, 3, 4, 99}}
	if c.initial() > 0 && c.sends() {
		o.Initial = &creditpb.Request{N: c.initial()}
	}
	if c.bounded() {
		o.MaxBufferedBytes = 100
	}
	if c.beating() {
		o.Heartbeat = durationpb.New(time.Second)
	}
	return &creditpb.Control{Kind: &creditpb.Control_Open{Open: o}}
}

// control is any, with arg read as its kind and values wherever there are some.
func (c *tramp) control(what, arg byte) *creditpb.Control {
	count := [...]uint64{0, 1, 2, c.sent, c.sent, c.sent, c.sent + 1, math.MaxUint64}[arg%8]
	n := [...]int64{0, 1, 2, 3, 5, 8, 60, 1000, math.MaxInt64, math.MaxInt64 - 1, 1 << 62, -1, math.MinInt64, 1, 2, 3}[arg/8%16]
	what /= 16
	if (what <= 8 && !c.sends() || what >= 9 && what <= 11 && !c.receives() || what == 13) && arg%8 != 0 {
		what = 12 // likewise
	}
	switch what {
	case 0, 1, 2, 3, 4:
		return request(int64(arg%8+1), 0, arg&8 != 0)
	case 5, 6, 7:
		return request(n, [...]uint64{0, 0, 0, 0, 0, 0, 1, count}[arg%8], arg >= 128)
	case 8:
		return &creditpb.Control{Kind: &creditpb.Control_Cancel{Cancel: &creditpb.Cancel{Reason: string(make([]byte, 3*int(arg)))}}}
	case 9:
		return &creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{Total: count, GoingAway: arg&8 != 0}}}
	case 10:
		return &creditpb.Control{Kind: &creditpb.Control_Error{Error: &creditpb.Error{Code: int32(n), Message: "no", Total: count}}}
	case 11:
		return &creditpb.Control{Kind: &creditpb.Control_Drained{Drained: &creditpb.Drained{Sent: count, Burned: n}}}
	case 12:
		return &creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: &creditpb.Heartbeat{Echo: arg&1 == 0, Sent: count, Credit: n}}}
	case 13:
		return &creditpb.Control{Kind: &creditpb.Control_Open{Open: &creditpb.Open{
			MinVersion: uint32(arg / 64), MaxVersion: uint32(arg / 16 % 4), WillSend: arg&1 != 0, WillReceive: arg&2 != 0,
			Initial: &creditpb.Request{N: n}, MaxBufferedBytes: n, Heartbeat: durationpb.New(time.Duration(n)),
		}}}
	case 14:
		ctl := &creditpb.Control{WithData: arg&1 != 0}
		ctl.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, protowire.Number(arg%8)+8, protowire.BytesType), nil))
		return ctl
	}
	return &creditpb.Control{WithData: arg&1 != 0}
}

// A victim is an application on the server that follows the rules.
type victim struct {
	shape

	over    chan struct{}
	verdict error // what it saw that it should not have
}

func (v *victim) options() (opts []streamcredit.DuplexOption) {
	opts = append(opts, streamcredit.WithSendStallTimeout(0))
	switch {
	case v.manual():
		opts = append(opts, streamcredit.WithManualDemand())
	default:
		opts = append(opts, streamcredit.WithWindow(hostileWindow), streamcredit.WithExplicitConsume())
	}
	if v.bounded() {
		opts = append(opts, streamcredit.WithByteWindow(300), streamcredit.WithMaxMessageBytes(200))
	}
	if v.beating() {
		opts = append(opts, streamcredit.WithHeartbeat(time.Second))
	}
	return opts
}

func (v *victim) register(r grpc.ServiceRegistrar) {
	demopb.RegisterStreamServiceServer(r, handlers{convert: func(stream convertServer) error {
		both, _, err := streamcredit.Serve(stream, v.options()...)
		if err != nil {
			return v.serve(stream.Context(), side{}, err)
		}
		return v.serve(stream.Context(), sideOf(both, func(n int64) *demopb.ConvertResponse { return &demopb.ConvertResponse{Number: n} },
			func(m *demopb.ConvertRequest) int64 { return int64(len(m.GetPayload())) }), nil)
	}})
	creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
		opts := v.options()
		if !v.sends() {
			opts = append(opts, streamcredit.WithReceiveOnly())
		} else if !v.receives() {
			opts = append(opts, streamcredit.WithSendOnly())
		}
		both, _, err := streamcredit.ServeFrames(stream, opts...)
		if err != nil {
			return v.serve(stream.Context(), side{}, err)
		}
		return v.serve(stream.Context(), sideOf(both, toBytes, func(b []byte) int64 { return int64(len(b)) }), nil)
	}})
}

// serve returns an error if the peer has broken the protocol, and nil if it has ended in any
// other way.
func (v *victim) serve(ctx context.Context, s side, err error) error {
	defer close(v.over)
	errs := make(chan error, 3)
	errs <- err
	var both sync.WaitGroup
	if s.out != nil {
		both.Go(func() { errs <- v.send(ctx, s.out) })
	}
	if s.in != nil {
		both.Go(func() { errs <- v.receive(ctx, s.in) })
	}
	both.Wait()
	close(errs)
	for err := range errs {
		if _, ok := errors.AsType[*streamcredit.ProtocolError](err); ok {
			return err
		}
	}
	return nil
}

func (*victim) send(ctx context.Context, out outlet) error {
	for n := range int64(300) {
		if err := out.send(ctx, n); err != nil {
			return err
		}
	}
	return out.Finish(ctx)
}

func (v *victim) receive(ctx context.Context, in inlet) error {
	var seen, asked, done int64
	for {
		if v.manual() && seen == asked {
			asked += 3
			if err := in.Request(3); err != nil {
				return err
			}
		}
		if !v.manual() && seen-done == 2 {
			done += 2
			if err := in.Consume(2); err != nil {
				return err
			}
		}
		if _, err := in.recv(ctx); err != nil {
			return err
		}
		seen++
		if held := in.Stats().Buffered; held > hostileWindow || v.manual() && seen+int64(held) > asked {
			v.verdict = fmt.Errorf("the application: got %d elements and %d more in the buffer, want at most the %d that it granted", seen, held, asked)
		}
	}
}

func TestHostileFrames(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := shape(rapid.Byte().Draw(rt, "shape"))
		input := rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(rt, "input")
		var err error
		synctest.Test(t, func(t *testing.T) { err = playFrames(t, s, input) })
		if err != nil {
			rt.Fatalf("%08b %v: %v", s, input, err)
		}
	})
}

// FuzzFrames reads a shape and what a hostile client writes off the input.
func FuzzFrames(f *testing.F) {
	const longest = 300                                          // bytes
	f.Add([]byte{0, 5, 7, 5, 15})                                // demand, drain, half-close
	f.Add([]byte{64 + 8})                                        // a full byte window
	f.Add([]byte{1, 0, 1, 0, 2, 0, 3, 149, 3})                   // elements and Complete
	f.Add([]byte{1, 1, 7, 1, 7})                                 // a batch beyond the credit
	f.Add([]byte{1 + 4, 0, 1, 0, 1, 0, 1, 0, 1})                 // elements beyond the credit
	f.Add([]byte{3, 2, 80, 101, 200, 133, 1, 0, 1, 149, 3})      // control on elements, Cancel, Complete
	f.Add([]byte{2, 4, 255, 4, 255})                             // a flood
	f.Add([]byte{2 + 16, 3, 255, 197, 0, 3, 255})                // heartbeats missed
	f.Add([]byte{32, 213, 3, 5, 5})                              // a strange Open
	f.Add([]byte{128 + 2, 0, 1, 5, 1, 229, 1, 245, 1, 165, 200}) // leaves, kinds that are not known, Error
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) == 0 {
			return
		}
		s, input := shape(input[0]), input[1:min(len(input), longest)]
		synctest.Test(t, func(t *testing.T) {
			if err := playFrames(t, s, input); err != nil {
				t.Fatalf("%08b %v: %v", s, input, err)
			}
		})
	})
}
