// Package goend makes weir's own streamcredit an end under test. It has a server and a client that play the
// scripts of the conformance suite.
package goend

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/conformance/conformancepb"
	"github.com/weir-go/weir/streamcredit"
)

// options returns the options that a script asks for.
func options(s *conformancepb.Script) []streamcredit.DuplexOption {
	opts := optionList{}
	opts.add(s.GetHandshakeTimeoutMs() > 0, streamcredit.WithHandshakeTimeout(ms(s.GetHandshakeTimeoutMs())))
	opts.add(s.GetHeartbeatMs() > 0, streamcredit.WithHeartbeat(ms(s.GetHeartbeatMs())))
	opts.add(s.GetReceive() == nil, streamcredit.WithSendOnly())
	opts.add(s.GetSend() == nil, streamcredit.WithReceiveOnly())
	if out := s.GetSend(); out != nil {
		opts.add(out.GetFirstRequestTimeoutMs() > 0, streamcredit.WithFirstRequestTimeout(ms(out.GetFirstRequestTimeoutMs())))
		opts.add(out.GetStallTimeoutMs() > 0, streamcredit.WithSendStallTimeout(ms(out.GetStallTimeoutMs())))
		bound := streamcredit.WithMaxPeerCredit
		if out.GetRejectBeyond() {
			bound = streamcredit.WithMaxPeerDemand
		}
		opts.add(out.GetMaxPeerCredit() > 0, bound(out.GetMaxPeerCredit()))
	}
	if in := s.GetReceive(); in != nil {
		opts.add(in.GetWindow() > 0, streamcredit.WithWindow(int(in.GetWindow())))
		opts.add(in.GetWindow() == 0, streamcredit.WithManualDemand())
		opts.add(in.GetByteWindow() > 0, streamcredit.WithByteWindow(in.GetByteWindow()))
		opts.add(in.GetMaxMessageBytes() > 0, streamcredit.WithMaxMessageBytes(in.GetMaxMessageBytes()))
		opts.add(in.GetHold(), streamcredit.WithExplicitConsume())
	}
	return opts
}

type optionList []streamcredit.DuplexOption

func (l *optionList) add(wanted bool, o streamcredit.DuplexOption) {
	if wanted {
		*l = append(*l, o)
	}
}

func ms(n int32) time.Duration { return time.Duration(n) * time.Millisecond }

// An end is one end of a session, for elements of any type.
type end struct {
	out interface { // nil if the end does not send
		Close() error
		CloseGoingAway() error
		CloseWithError(err error) error
		Finish(ctx context.Context) error
		WaitCredit(ctx context.Context) error
		Done() <-chan struct{}
	}
	in interface { // nil if the end does not receive
		Request(n int64) error
		Drain(ctx context.Context) (int64, error)
		Cancel(reason string)
	}
	send  func(ctx context.Context, number int64, payload []byte) error
	recv  func(ctx context.Context) (number int64, err error)
	close func() error
}

// elements builds outgoing elements of type O, and reads the numbers of incoming elements of type I.
type elements[O, I any] struct {
	build  func(number int64, payload []byte) O
	number func(I) int64
}

var (
	requests = elements[*conformancepb.RunRequest, *conformancepb.RunResponse]{
		build: func(number int64, payload []byte) *conformancepb.RunRequest {
			return &conformancepb.RunRequest{Number: number, Payload: payload}
		},
		number: (*conformancepb.RunResponse).GetNumber,
	}
	responses = elements[*conformancepb.RunResponse, *conformancepb.RunRequest]{
		build: func(number int64, payload []byte) *conformancepb.RunResponse {
			return &conformancepb.RunResponse{Number: number, Payload: payload}
		},
		number: (*conformancepb.RunRequest).GetNumber,
	}
	// Encoded, a RunRequest without a script is a RunResponse.
	encoded = elements[[]byte, []byte]{
		build: func(number int64, payload []byte) []byte {
			b, err := proto.Marshal(&conformancepb.RunRequest{Number: number, Payload: payload})
			if err != nil {
				return nil // impossible, because the message has no strings
			}
			return b
		},
		number: func(b []byte) int64 {
			var m conformancepb.RunRequest
			if proto.Unmarshal(b, &m) != nil {
				return -1
			}
			return m.GetNumber()
		},
	}
)

// of returns a streamcredit session as an end.
func of[O, I any](d *streamcredit.Duplex[O, I], as elements[O, I]) *end {
	e := &end{close: d.Close}
	if d.Out != nil {
		e.out = d.Out
		e.send = func(ctx context.Context, number int64, payload []byte) error {
			return d.Out.Send(ctx, as.build(number, payload))
		}
	}
	if d.In != nil {
		e.in = d.In
		e.recv = func(ctx context.Context) (int64, error) {
			element, err := d.In.Recv(ctx)
			if err != nil {
				return 0, err
			}
			return as.number(element), nil
		}
	}
	return e
}
