package interceptors

import (
	"context"
	"errors"
	"io"
	"slices"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// detailsKey is the trailer in which gRPC sends a status with details.
const detailsKey = "grpc-status-details-bin"

// unaryRestore returns an interceptor that gives a call back the refusal that gRPC's
// retries lost. It stands next to gRPC, so that the others see the refusal, too.
//
// gRPC loses the status of the last attempt in two cases. It sleeps before the next one
// until the deadline ends, and reports DEADLINE_EXCEEDED. Or the attempt was refused
// before its request was all sent, and the error is io.EOF with the code UNKNOWN. The
// trailer of that attempt still has the status.
func unaryRestore(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	var trailer metadata.MD
	err := invoker(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.Trailer(&trailer))...)
	if !lossy(err) {
		return err
	}
	return restored(err, trailer)
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
	if !lossy(err) {
		return err
	}
	return restored(err, s.Trailer())
}

// lossy reports whether gRPC may have put an error in the place of a refusal.
func lossy(err error) bool {
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return true
	case codes.Unknown:
		return errors.Is(err, io.EOF) && err != io.EOF //nolint:errorlint // a stream's end is io.EOF itself
	default:
		return false
	}
}

// restored returns the refusal in a trailer, if there is one with another code than the
// error has, and otherwise the error.
func restored(err error, trailer metadata.MD) error {
	values := trailer[detailsKey]
	if len(values) != 1 {
		return err
	}
	var st spb.Status
	if proto.Unmarshal([]byte(values[0]), &st) != nil || codes.Code(st.GetCode()) == status.Code(err) {
		return err
	}
	if _, ok := wireRefusal(&st); !ok || sound(codes.Code(st.GetCode())) == codes.Unknown {
		return err
	}
	if status.Code(err) == codes.DeadlineExceeded {
		st.Message += " (the call's deadline comes first)"
	}
	return status.FromProto(&st).Err()
}
