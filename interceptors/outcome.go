package interceptors

import (
	"errors"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
)

// outcome says what the end of a call means to the limit.
func (c *config) outcome(err error) admit.Outcome {
	switch {
	case err != nil && ours(err):
		return admit.Ignored
	case c.outcomeOf != nil:
		return c.outcomeOf(err)
	case err == nil:
		return admit.Success
	}
	switch st := statusOf(err); st.Code() {
	case codes.DeadlineExceeded, codes.Unavailable:
		return admit.Overload
	case codes.ResourceExhausted:
		if fromGRPC(st) {
			return admit.Ignored
		}
		return admit.Overload
	default:
		return admit.Ignored
	}
}

// ours reports whether a gate in this process made the error: it says something
// about that gate, and nothing about the work behind this one. What a gate in
// another process made has come over the wire and is not ours.
func ours(err error) bool {
	_, ok := errors.AsType[*stopped](err)
	return ok || errors.Is(err, admit.ErrRefused)
}

// fromWeir reports whether a status has come from a weir, of this process or
// another: somebody refused a call in good health.
func fromWeir(st *status.Status) bool {
	if strings.HasSuffix(st.Message(), fullText) { // gRPC puts words before it when retries are used up
		return true
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return true
		}
	}
	return false
}

// fromGRPC reports whether gRPC made a status, at either end, of what was given to it:
// a message that is too large, or something that it could not send. This says
// nothing about the load or the health of a server. There is nothing but the text
// to tell it by; TestErrorsOfGRPC notices when that changes.
func fromGRPC(st *status.Status) bool {
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

// statusOf returns the status that grpc sends for a handler's error: unlike
// status.Convert it knows the errors of contexts.
func statusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}

func codeOf(err error) codes.Code { return statusOf(err).Code() }
