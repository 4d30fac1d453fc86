package refusal

import (
	"errors"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
)

// Ours reports whether a gate in this process made the error: it says something
// about that gate, and nothing about the work behind this one. What a gate in
// another process made has come over the wire and is not ours.
func Ours(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok || errors.Is(err, admit.ErrRefused)
}

// FromWeir reports whether a status has come from a weir, of this process or
// another: somebody refused a call in good health.
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

// Full reports whether a RESOURCE_EXHAUSTED says that a server, or a client further on,
// had no room for the call. Without a word from weir it is taken for a quota: that of its
// caller, which says nothing about others.
func Full(st *status.Status) bool {
	r, ok := FromStatus(st)
	return ok && slices.Contains(fullReasons, r.Reason)
}

// fullReasons are those of refusals by a gate that has too much to do; not those for
// which a caller or tenant is refused.
var fullReasons = func() (names []string) {
	for _, r := range []admit.Reason{
		admit.QueueFull, admit.Displaced, admit.DeadlineTooClose, admit.WaitedTooLong, admit.Draining,
	} {
		names = append(names, r.String())
	}
	return names
}()

// Unreached reports whether an UNAVAILABLE was made by gRPC here because it had no
// connection. Such a call never was on a server, so it was none too many there.
func Unreached(st *status.Status) bool {
	return slices.ContainsFunc(unconnected, func(text string) bool { return strings.Contains(st.Message(), text) })
}

// FromGRPC reports whether gRPC made a status, at either end, of what was given to it:
// a message that is too large, or something that it could not send. This says
// nothing about the load or the health of a server. There is nothing but the text
// to tell it by; TestErrorsOfGRPC notices when that changes.
func FromGRPC(st *status.Status) bool {
	var texts []string
	switch st.Code() {
	case codes.ResourceExhausted:
		texts = tooLarge
	case codes.Internal, codes.Unauthenticated:
		texts = unsent
	default:
		return false
	}
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(st.Message(), text) })
}

var (
	tooLarge = []string{
		"message larger than max", // of grpc-go, C-core and grpc-js
		"after decompression larger than max",
		"message exceeds maximum size", // of grpc-java
	}
	unconnected = []string{
		"connection error: desc =",
		"name resolver error:",
		"name resolver produced",
	}
	unsent = []string{
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
)

// StatusOf returns the status that grpc sends for a handler's error: unlike
// status.Convert it knows the errors of contexts.
func StatusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}

func CodeOf(err error) codes.Code { return StatusOf(err).Code() }
