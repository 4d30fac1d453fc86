package broker

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/details"
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
// throttle or an open circuit, is Refused, with the delay of its RetryInfo, up to one hour.
// Any other error is Failed, also a RESOURCE_EXHAUSTED of gRPC itself because a message is
// too large. The error may be wrapped, and it may be one of several that are joined.
func FailureOf(err error) Failure {
	if _, ok := errors.AsType[*rejection](err); ok {
		return Failure{Kind: Rejected}
	}
	if r, ok := errors.AsType[*admit.Refusal](err); ok {
		return Failure{Kind: Refused, RetryAfter: max(r.RetryAfter, 0)}
	}
	if st := refusalIn(err); st != nil {
		return Failure{Kind: Refused, RetryAfter: details.Of(st.Proto()).RetryAfter}
	}
	return Failure{}
}

// refusalIn returns the status of a refusal in an error and the errors that it wraps, or nil
// if there is none. A handler may join the errors of several calls.
func refusalIn(err error) *status.Status {
	for e := range details.Tree(err) {
		if st, ok := status.FromError(e); ok && refuses(st) {
			return st
		}
	}
	return nil
}

// refuses reports whether a status says that something takes no work now.
func refuses(st *status.Status) bool {
	switch st.Code() {
	case codes.OK:
		return false
	case codes.Unavailable:
		return true
	case codes.ResourceExhausted:
		return !statustext.TooLarge(st.Message())
	default:
		return details.Of(st.Proto()).Reason != ""
	}
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
		st := refusalIn(err)
		reason := details.Of(st.Proto()).Reason
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
