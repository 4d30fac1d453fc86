package interceptors

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// unaryRestore is an interceptor that restores the refusal that gRPC's retries lost. It
// stands next to gRPC, so that the other interceptors see the refusal too.
//
// gRPC loses the status of the last attempt in two cases. If it sleeps until the deadline,
// it reports DEADLINE_EXCEEDED. If the attempt was refused before its request was sent in
// full, the error is io.EOF with the code UNKNOWN. The trailer of that attempt still has the
// status.
func unaryRestore(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	var trailer metadata.MD
	err := invoker(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.Trailer(&trailer))...)
	if !refusal.Lost(err) {
		return err
	}
	return refusal.Restore(err, trailer)
}

// streamRestore is unaryRestore for streams.
func streamRestore(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return restoredStream{s}, nil
}

type restoredStream struct{ grpc.ClientStream }

func (s restoredStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if !refusal.Lost(err) {
		return err
	}
	return refusal.Restore(err, s.Trailer())
}
