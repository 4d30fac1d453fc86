package interceptors

import (
	"errors"

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
	switch codeOf(err) {
	case codes.DeadlineExceeded, codes.ResourceExhausted, codes.Unavailable:
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

// codeOf returns the code that grpc sends for a handler's error: unlike
// status.Code it knows the errors of contexts.
func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}
