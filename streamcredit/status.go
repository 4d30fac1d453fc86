package streamcredit

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/internal/details"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// This file makes every status of the package, and reads the statuses of peers and of gRPC.

// Code returns the gRPC code of violations with the reason r, or UNKNOWN if r is not a reason.
func (r Reason) Code() codes.Code {
	switch r {
	case InvalidDemand, InvalidConsumed:
		return codes.InvalidArgument
	case UnexpectedFrame, VersionMismatch, AfterTerminal:
		return codes.FailedPrecondition
	case DemandTooLarge, CreditExceeded, BytesExceeded, MessageTooLarge, ControlFlood, BudgetExhausted:
		return codes.ResourceExhausted
	case CountMismatch:
		return codes.DataLoss
	case HandshakeTimeout, FirstRequestTimeout, CreditStarved:
		return codes.DeadlineExceeded
	case PeerStalled:
		return codes.Unavailable
	}
	return codes.Unknown
}

// reasonStatus returns the status of a violation, with the reason as ErrorInfo.
func reasonStatus(r Reason, text string) *status.Status {
	st := status.New(r.Code(), text)
	if detailed, err := st.WithDetails(&errdetails.ErrorInfo{Reason: string(r), Domain: details.Domain}); err == nil {
		return detailed
	}
	return st
}

// faultStatus returns the status of a fault of this process.
func faultStatus(text string) *status.Status {
	return status.New(codes.Internal, "streamcredit: "+text)
}

// canceledStatus returns the status of a direction that the receiver has ended.
func canceledStatus(text string) *status.Status { return status.New(codes.Canceled, text) }

// fullError returns the error of a handler when its receiver requests too little, or takes no
// element as large.
func fullError(cause error) error { return status.Error(codes.ResourceExhausted, cause.Error()) }

// contextError returns the error of a stream after its context has ended with err.
func contextError(err error) error { return status.FromContextError(err).Err() }

// saysContextEnded reports whether err is that of a read after the stream's context has ended.
func saysContextEnded(err error) bool {
	code := status.Code(err)
	return code == codes.Canceled || code == codes.DeadlineExceeded
}

// statusOf returns the status with which gRPC ends a stream when its handler returns err.
func statusOf(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.FromContextError(err)
}

// The largest error that a sender ends with, in bytes.
const (
	mostErrorText    = 8 << 10
	mostErrorDetails = 32 << 10
)

// wireError returns err as the message that ends a direction, without the number of elements.
func wireError(err error) *creditpb.Error {
	p := statusOf(err).Proto()
	p.Message = clip(strings.ToValidUTF8(p.GetMessage(), "\uFFFD"), mostErrorText)
	if proto.Size(p)-len(p.GetMessage()) > mostErrorDetails {
		p.Details = nil
	}
	return &creditpb.Error{Code: p.GetCode(), Message: p.GetMessage(), Details: p.GetDetails()}
}

// remoteError returns the error of Recv for an Error.
func remoteError(e *creditpb.Error) error {
	code := codes.Code(e.GetCode())
	if code == codes.OK || code > codes.Unauthenticated {
		code = codes.Unknown
	}
	p := status.New(code, e.GetMessage()).Proto()
	p.Details = e.GetDetails()
	return status.FromProto(p).Err()
}
