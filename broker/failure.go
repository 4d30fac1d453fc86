package broker

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/statustext"
)

// A FailureKind says how [Consume] goes on after an error of the handler: Failed, Refused
// or Rejected.
type FailureKind uint8

const (
	// Failed is the fault of the message or the handler. The attempt counts. The message
	// is given back, or becomes a dead letter after the last attempt.
	Failed FailureKind = iota
	// Refused says that something which the handler needs takes no work now. The attempt
	// does not count, and consumption pauses.
	Refused
	// Rejected says that no attempt can succeed. The message becomes a dead letter at
	// once.
	Rejected
)

// A Failure is the meaning of a handler's error.
type Failure struct {
	// Kind says how Consume goes on. The zero value is Failed.
	Kind FailureKind
	// RetryAfter is the delay that a dependency asked for, if Kind is Refused. Zero means
	// that it asked for none.
	RetryAfter time.Duration
}

// FailureOf is the default of ConsumeConfig.FailureOf. An error of [Reject] is Rejected. A
// gRPC status UNAVAILABLE or RESOURCE_EXHAUSTED and every refusal of weir, by a gate, a
// throttle or an open circuit, is Refused, with the delay of its RetryInfo. Any other error
// is Failed, also a RESOURCE_EXHAUSTED of gRPC itself because a message is too large. The
// error may be wrapped.
func FailureOf(err error) Failure {
	if _, ok := errors.AsType[*rejection](err); ok {
		return Failure{Kind: Rejected}
	}
	if r, ok := errors.AsType[*admit.Refusal](err); ok {
		return Failure{Kind: Refused, RetryAfter: max(r.RetryAfter, 0)}
	}
	st, ok := status.FromError(err)
	if !ok {
		return Failure{}
	}
	ours, delay := details(st)
	switch {
	case ours != "", st.Code() == codes.Unavailable:
	case st.Code() == codes.ResourceExhausted && !statustext.TooLarge(st.Message()):
	default:
		return Failure{}
	}
	return Failure{Kind: Refused, RetryAfter: delay}
}

// Reject marks an error of a handler as final. The message becomes a dead letter at once,
// with the text of err as its reason. Reject(nil) is nil.
//
//	if payment.Amount < 0 {
//		return broker.Reject(errors.New("the amount is negative"))
//	}
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return &rejection{err}
}

// A rejection is the error of Reject.
type rejection struct{ err error }

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

const (
	weirDomain = "weir" // of ErrorInfo
	// mostDetails bounds the details of a status that are read.
	mostDetails = 16
)

// details returns the reason of a refusal by weir, and the delay of RetryInfo.
func details(st *status.Status) (reason string, delay time.Duration) {
	if len(st.Proto().GetDetails()) > mostDetails {
		return "", 0
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == weirDomain {
				reason = d.GetReason()
			}
		case *errdetails.RetryInfo:
			if d.GetRetryDelay().IsValid() {
				delay = max(d.GetRetryDelay().AsDuration(), 0)
			}
		}
	}
	return reason, delay
}

// outcomeOf returns the end of a handler as the limit of the gate sees it. A refusal by
// this process, or a call that reached no server, shows nothing about the load that the
// permit added.
func outcomeOf(err error, f Failure) admit.Outcome {
	switch {
	case err == nil:
		return admit.Success
	case errors.Is(err, admit.ErrRefused):
		return admit.Ignored
	case f.Kind == Refused:
		st, _ := status.FromError(err)
		reason, _ := details(st)
		if local := reason == "CIRCUIT_OPEN" || reason == "THROTTLED"; local || statustext.Unconnected(st.Message()) {
			return admit.Ignored
		}
		return admit.Overload
	case f.Kind == Failed && (errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded):
		return admit.Overload
	default:
		return admit.Ignored
	}
}
