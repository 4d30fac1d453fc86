package refusal

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
)

// ErrSendStalled is interceptors.ErrSendStalled.
var ErrSendStalled = errors.New("weir: the client does not take what is sent to it")

// Stalled returns the error of a stream that was ended because no Send returned for a time.
// The gate is empty if no gate admitted the stream.
func Stalled(after time.Duration, gate string) *Error {
	text := fmt.Sprintf("%v: no message for %v", ErrSendStalled, rounded(after))
	is := &Refusal{Reason: "send_stalled", Gate: label(gate)}
	if is.Gate != "" {
		text += fmt.Sprintf(" (gate %q)", is.Gate)
	}
	return newError(ErrSendStalled, newStatus(codes.ResourceExhausted, text, is), is)
}
