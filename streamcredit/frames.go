package streamcredit

import (
	"context"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// ServeFrames makes a handler of CreditStream.Channel both sender and receiver of bytes. With
// [WithSendOnly] or [WithReceiveOnly] it does one of the two, and the other field is nil. Small elements
// share messages. An element must not be changed after Send.
//
// Send does not wait for the transport unless many bytes wait for it. Finish and the Close methods
// wait until the transport has all elements. A handler that has sent must call one of them. If it
// returns without, gRPC ends the stream at once and drops the elements that wait. The client then
// gets the elements that were written and, if the handler returned nil, a [*ProtocolError] with
// [CountMismatch]. The first 64 elements are never lost in this way, since Send waits until they
// are written. A client that does not list FEATURE_UNFINISHED would take such an end for a proper
// one. With such a client Send waits until each element is written, and elements share no
// messages. Otherwise ServeFrames is like [ServeSend].
func ServeFrames(stream Stream[creditpb.Frame, creditpb.Frame], opts ...DuplexOption) (*Duplex[[]byte, []byte], []byte, error) {
	c, err := newConfig(role{server: true, sends: true, receives: true}, opts)
	if err != nil {
		return nil, nil, err
	}
	if stream == nil {
		return nil, nil, errNoStream
	}
	s, err := serve(stream.Context(), newServedFramed(stream), headerOf(stream), c)
	if err != nil {
		return nil, nil, err
	}
	return newDuplex(s), s.setup, nil
}

// DialFrames opens a stream of bytes to a handler that uses [ServeFrames]. open is the method
// Channel of a CreditStream client. Otherwise DialFrames is like [Dial].
func DialFrames[CallOption any, S ClientStream[creditpb.Frame, creditpb.Frame]](
	ctx context.Context, open func(context.Context, ...CallOption) (S, error), opts ...DuplexOption,
) (*Duplex[[]byte, []byte], error) {
	c, err := newConfig(role{sends: true, receives: true}, opts)
	if err != nil {
		return nil, err
	}
	w := newFramed(nil)
	s, err := dial(ctx, open, c, w, func(stream S) { w.stream, w.closeSend = stream, stream.CloseSend })
	if err != nil {
		return nil, err
	}
	return newDuplex(s), nil
}
