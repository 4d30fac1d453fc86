package refusal

import (
	"context"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/details"
)

const (
	// PushbackKey is the trailer in which grpc clients look for the delay.
	PushbackKey = "grpc-retry-pushback-ms"
	domain      = details.Domain
	// gateKey is where ErrorInfo has the name of the gate.
	gateKey  = "gate"
	lastCode = codes.Unauthenticated
)

// codeTable holds the code of refusals for each reason.
type codeTable [admit.NumReasons]codes.Code

var (
	serverCodes = codeTable{
		admit.QueueFull:        codes.Unavailable,
		admit.Evicted:          codes.Unavailable,
		admit.DeadlineTooClose: codes.Unavailable,
		admit.WaitedTooLong:    codes.Unavailable,
		admit.Draining:         codes.Unavailable,
		admit.OverShare:        codes.ResourceExhausted,
		admit.OverQuota:        codes.ResourceExhausted,
		admit.TooManyOpen:      codes.ResourceExhausted,

		admit.MemoryPressure:    codes.Unavailable,
		admit.GCPressure:        codes.Unavailable,
		admit.ProcessorPressure: codes.Unavailable,
		admit.UnderPressure:     codes.Unavailable,
	}
	clientCodes = codeTable{
		admit.QueueFull:        codes.ResourceExhausted,
		admit.Evicted:          codes.ResourceExhausted,
		admit.DeadlineTooClose: codes.ResourceExhausted,
		admit.WaitedTooLong:    codes.ResourceExhausted,
		admit.Draining:         codes.Unavailable,
		admit.OverShare:        codes.ResourceExhausted,
		admit.OverQuota:        codes.ResourceExhausted,
		admit.TooManyOpen:      codes.ResourceExhausted,

		admit.MemoryPressure:    codes.ResourceExhausted,
		admit.GCPressure:        codes.ResourceExhausted,
		admit.ProcessorPressure: codes.ResourceExhausted,
		admit.UnderPressure:     codes.ResourceExhausted,
	}
)

func (t *codeTable) of(why admit.Reason) codes.Code {
	if int(why) < len(t) {
		return t[why]
	}
	return codes.Unavailable
}

// Sound returns code, or Unknown if a call cannot be refused with it.
func Sound(c codes.Code) codes.Code {
	if c == codes.OK || c > lastCode {
		return codes.Unknown
	}
	return c
}

// An Error is the error of a call that was not admitted or not sent, because it was refused
// or its context ended. It is shared and never changes.
type Error struct {
	cause   error // a *admit.Refusal, a sentinel, or the context's error
	status  *status.Status
	refusal *Refusal    // nil if the context ended
	trailer metadata.MD // of a server's refusal
	text    string
}

func (s *Error) Error() string { return s.text }

// GRPCStatus is how package status finds the status of an error.
func (s *Error) GRPCStatus() *status.Status { return s.status }

// Unwrap makes the cause visible to errors.Is and errors.As.
func (s *Error) Unwrap() error { return s.cause }

// TrailerFor returns the trailer for the caller of a call with that context. gRPC sleeps for
// the delay even if the deadline comes first, and the caller then never sees the refusal. An
// attempt with less time left than the sleep is of little use. So such a call is not
// retried.
func (s *Error) TrailerFor(ctx context.Context) metadata.MD {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 2*s.refusal.RetryAfter {
		return DontRetry
	}
	return s.trailer
}

// Trailer returns the trailer of a server's refusal, nil if there is none.
func (s *Error) Trailer() metadata.MD { return s.trailer }

func newError(cause error, st *status.Status, r *Refusal) *Error {
	return &Error{cause: cause, status: st, refusal: r, text: st.Err().Error()}
}

var (
	errDeadline = newError(context.DeadlineExceeded,
		status.New(codes.DeadlineExceeded, "weir: the deadline ended before the call's turn"), nil)
	errCanceled = newError(context.Canceled,
		status.New(codes.Canceled, "weir: canceled before the call's turn"), nil)
	// ErrNoGate is the error of every call of an interceptor that has no gate.
	ErrNoGate = status.Error(codes.Internal, "weir: interceptor without a gate")
)

// Misconfigured returns the error of every call of an interceptor that cannot work.
func Misconfigured(err error) error {
	return status.Error(codes.Internal, "weir: misconfigured interceptor: "+err.Error())
}

// newStatus returns the status of a refusal, with details.
func newStatus(c codes.Code, text string, r *Refusal) *status.Status {
	info := &errdetails.ErrorInfo{Reason: strings.ToUpper(r.Reason), Domain: domain}
	if r.Gate != "" {
		info.Metadata = map[string]string{gateKey: r.Gate}
	}
	all := []protoadapt.MessageV1{info}
	if r.RetryAfter > 0 {
		all = append(all, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	st := status.New(c, text)
	if detailed, err := st.WithDetails(all...); err == nil { // it fails for OK only
		return detailed
	}
	return st
}

// DontRetry is the trailer that tells a client not to retry.
var DontRetry = metadata.MD{PushbackKey: {"-1"}}

// ErrTooClose is the error of a call that a client did not send because of its deadline.
var ErrTooClose = func() *Error {
	is := &Refusal{Reason: admit.DeadlineTooClose.String()}
	st := newStatus(codes.DeadlineExceeded, "weir: this client did not send the call: its deadline is too close", is)
	return newError(&admit.Refusal{Reason: admit.DeadlineTooClose}, st, is)
}()
