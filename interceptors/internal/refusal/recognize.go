package refusal

import (
	"errors"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/statustext"
)

// Ours reports whether a gate, throttle or breaker in this process made the error. It then
// tells about that one, and nothing about the work behind this gate. An error of another
// process came over the wire and is not ours.
func Ours(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok || errors.Is(err, admit.ErrRefused)
}

// FromWeir reports whether a weir made the status, of this process or another. Its server
// was healthy and refused the call.
func FromWeir(st *status.Status) bool {
	if _, ok := textRefusal(st.Message()); ok { // of a tap
		return true
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return true
		}
	}
	return false
}

// Full reports whether a RESOURCE_EXHAUSTED came from a gate that had no room for the call.
// Without the details of weir it is taken for the quota of the caller, which shows nothing
// about other calls.
func Full(st *status.Status) bool {
	r, ok := FromStatus(st)
	return ok && slices.Contains(fullReasons, r.Reason)
}

// fullReasons are the reasons of a gate with too much to do. A refusal because of a caller
// or tenant is not among them.
var fullReasons = func() (names []string) {
	for _, r := range []admit.Reason{
		admit.QueueFull, admit.Evicted, admit.DeadlineTooClose, admit.WaitedTooLong, admit.Draining,
	} {
		names = append(names, r.String())
	}
	return names
}()

// Unreached reports whether gRPC made an UNAVAILABLE here because it had no connection. The
// call never reached a server, so it shows no overload.
func Unreached(st *status.Status) bool {
	return statustext.Unconnected(st.Message())
}

// FromGRPC reports whether gRPC itself made a status, at either end, for a message that is
// too large or a value that it cannot send. It shows nothing about the load or the health of
// a server. Only the text identifies it; TestErrorsOfGRPC notices a change.
func FromGRPC(st *status.Status) bool {
	switch st.Code() {
	case codes.ResourceExhausted:
		return statustext.TooLarge(st.Message())
	case codes.Internal, codes.Unauthenticated:
		return slices.ContainsFunc(unsent, func(text string) bool { return strings.Contains(st.Message(), text) })
	default:
		return false
	}
}

var unsent = []string{
	"grpc: error while marshaling",
	"grpc: Compressor is not installed",
	"no codec registered for content-subtype",
	"contains illegal characters not in [0-9a-z-_.]",
	"contains value with non-printable ASCII characters",
	"there is an empty key in the header",
	"header list size to send violates the maximum size",
	"transport: per-RPC creds failed",
	"transport: received per-RPC creds error",
	"transport: cannot send secure credentials",
}

// StatusOf returns the status that gRPC sends for a handler's error. Unlike status.Convert
// it knows the errors of contexts.
func StatusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}

// CodeOf returns the code of StatusOf.
func CodeOf(err error) codes.Code { return StatusOf(err).Code() }
