package streamcredit

import (
	"context"

	"google.golang.org/grpc/metadata"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// ServeFrames makes a handler of CreditStream.Channel sender and receiver of bytes. With
// [SendOnly] or [ReceiveOnly] it does one of the two, and the other field is nil. Small elements
// share messages. An element must not be changed after Send.
//
// Send does not wait for the transport unless many bytes wait for it. Finish, Close and the like
// wait until all elements are in the transport's hands. A handler that has sent must call one of
// them. When it returns without, gRPC ends the stream at once and drops the elements that wait.
// The client then gets the elements that were written and, if the handler returned nil, a
// [*ProtocolError] with [CountMismatch]. The first 64 elements are never lost in this way, since
// Send waits for the transport. For a client that would take that end for the proper one, which
// does not list FEATURE_UNFINISHED, Send waits for all elements, and they share no messages.
// Otherwise ServeFrames is like [ServeSend].
func ServeFrames(stream Stream[creditpb.Frame, creditpb.Frame], opts ...DuplexOption) (*Duplex[[]byte, []byte], []byte, error) {
	c, err := newConfig(role{server: true, sends: true, receives: true}, opts)
	if err != nil {
		return nil, nil, err
	}
	s, err := serve(stream.Context(), newServedFramed(stream), headerOf(stream), c)
	if err != nil {
		return nil, nil, err
	}
	return newDuplex(s), s.setup, nil
}

// DialFrames opens a stream of bytes; open is the method Channel of a client of
// CreditStream. It is to [ServeFrames] what [Dial] is to [Serve].
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

// trailerOf returns the trailer of a client's stream, which has ended.
func trailerOf(stream any) metadata.MD {
	if t, ok := stream.(interface{ Trailer() metadata.MD }); ok {
		return t.Trailer()
	}
	return nil
}

// trailerSetterOf returns how to set a trailer on a server's stream, or nil if there is no way.
func trailerSetterOf(stream any) func(metadata.MD) {
	if t, ok := stream.(interface{ SetTrailer(md metadata.MD) }); ok {
		return t.SetTrailer
	}
	return nil
}

// last returns the last of some values, nothing if there are none.
func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
