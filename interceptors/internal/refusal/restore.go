package refusal

import (
	"errors"
	"io"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// detailsKey is the trailer in which gRPC sends a status with details.
const detailsKey = "grpc-status-details-bin"

// Lost reports whether gRPC may have put the error in the place of a refusal.
func Lost(err error) bool {
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return true
	case codes.Unknown:
		return errors.Is(err, io.EOF) && err != io.EOF //nolint:errorlint // a stream's end is io.EOF itself
	default:
		return false
	}
}

// Restore returns the refusal in a trailer, if there is one with another code than err has.
// Otherwise it returns err.
func Restore(err error, trailer metadata.MD) error {
	values := trailer[detailsKey]
	if len(values) != 1 {
		return err
	}
	var st spb.Status
	if proto.Unmarshal([]byte(values[0]), &st) != nil || codes.Code(st.GetCode()) == status.Code(err) {
		return err
	}
	if _, ok := fromDetails(&st); !ok || Sound(codes.Code(st.GetCode())) == codes.Unknown {
		return err
	}
	if status.Code(err) == codes.DeadlineExceeded {
		st.Message += " (the call's deadline comes first)"
	}
	return status.FromProto(&st).Err()
}
