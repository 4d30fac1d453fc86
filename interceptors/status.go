package interceptors

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/admit"
)

const (
	// pushbackKey is the trailer in which grpc clients look for the delay.
	pushbackKey = "grpc-retry-pushback-ms"
	domain      = "weir"
	lastCode    = codes.Unauthenticated
)

// codeTable holds the code of refusals for each reason.
type codeTable [admit.OverQuota + 1]codes.Code

var (
	serverCodes = codeTable{
		admit.QueueFull:        codes.Unavailable,
		admit.Displaced:        codes.Unavailable,
		admit.DeadlineTooClose: codes.Unavailable,
		admit.WaitedTooLong:    codes.Unavailable,
		admit.Draining:         codes.Unavailable,
		admit.OverShare:        codes.ResourceExhausted,
		admit.OverQuota:        codes.ResourceExhausted,
	}
	clientCodes = codeTable{
		admit.QueueFull:        codes.ResourceExhausted,
		admit.Displaced:        codes.ResourceExhausted,
		admit.DeadlineTooClose: codes.ResourceExhausted,
		admit.WaitedTooLong:    codes.ResourceExhausted,
		admit.Draining:         codes.Unavailable,
		admit.OverShare:        codes.ResourceExhausted,
		admit.OverQuota:        codes.ResourceExhausted,
	}
)

func (t *codeTable) of(why admit.Reason) codes.Code {
	if int(why) < len(t) {
		return t[why]
	}
	return codes.Unavailable
}

// sound returns a code with which a call can be refused.
func sound(c codes.Code) codes.Code {
	if c == codes.OK || c > lastCode {
		return codes.Unknown
	}
	return c
}

// A stopped is the error of a call that a gate did not let in: a refusal, or the
// end of its context before its turn. It is shared and never changes.
type stopped struct {
	cause   error // a *admit.Refusal, or the context's error
	status  *status.Status
	trailer metadata.MD // of a refusal
	text    string
}

func (s *stopped) Error() string { return s.text }

// GRPCStatus is how package status finds the status of an error.
func (s *stopped) GRPCStatus() *status.Status { return s.status }

// Unwrap makes the cause visible to errors.Is and errors.As.
func (s *stopped) Unwrap() error { return s.cause }

func newStopped(cause error, st *status.Status, trailer metadata.MD) *stopped {
	return &stopped{cause: cause, status: st, trailer: trailer, text: st.Err().Error()}
}

// newStatus returns a status with details: the reason, and what else there is.
func newStatus(c codes.Code, text string, why admit.Reason, more ...protoadapt.MessageV1) *status.Status {
	st := status.New(c, text)
	info := &errdetails.ErrorInfo{Reason: strings.ToUpper(why.String()), Domain: domain}
	if detailed, err := st.WithDetails(append([]protoadapt.MessageV1{info}, more...)...); err == nil { // it fails for OK only
		return detailed
	}
	return st
}

var (
	errDeadline = newStopped(context.DeadlineExceeded,
		status.New(codes.DeadlineExceeded, "weir: the deadline ended before the call's turn"), nil)
	errCanceled = newStopped(context.Canceled,
		status.New(codes.Canceled, "weir: canceled before the call's turn"), nil)
	errNoGate = status.Error(codes.Internal, "weir: interceptor without a gate")
)

// misconfigured returns the error of every call of an interceptor that cannot work.
func misconfigured(err error) error {
	return status.Error(codes.Internal, "weir: misconfigured interceptor: "+err.Error())
}

// fullError returns the error of a tap handle. It has no details, which would
// have to be marshalled in the connection's only reader.
func fullError(c codes.Code) error { return status.Error(c, fullText) }

// fullText is how clients recognise a tap's refusal: see fromWeir.
const fullText = "weir: refused: full"

// stop returns the error for a call that the gate did not let in.
func stop(err error, t *codeTable) *stopped {
	if r, ok := err.(*admit.Refusal); ok { //nolint:errorlint // Acquire does not wrap it, and this is the hot path
		return refusal(r, t.of(r.Reason))
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errDeadline
	case errors.Is(err, context.Canceled):
		return errCanceled
	}
	return newStopped(err, status.FromContextError(err), nil) // a context of somebody's own making
}

// refusals holds the errors that were built, by *admit.Refusal. It is bounded,
// because those are shared: a gate draws them from a few hundred.
var refusals sync.Map // of *[lastCode + 1]atomic.Pointer[stopped]

// refusal returns the error for a refusal, built once for each code.
func refusal(r *admit.Refusal, c codes.Code) *stopped {
	if r.Reason == admit.OverQuota {
		return quotaRefusal(r, c)
	}
	v, ok := refusals.Load(r)
	if !ok {
		v, _ = refusals.LoadOrStore(r, new([lastCode + 1]atomic.Pointer[stopped]))
	}
	slot := &v.(*[lastCode + 1]atomic.Pointer[stopped])[c] //nolint:forcetypeassert // the map holds nothing else
	if s := slot.Load(); s != nil {
		return s
	}
	slot.CompareAndSwap(nil, newRefusal(r, c))
	return slot.Load()
}

func newRefusal(r *admit.Refusal, c codes.Code) *stopped {
	text := "weir: refused: " + strings.ReplaceAll(r.Reason.String(), "_", " ")
	st := newStatus(c, text, r.Reason, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	ms := strconv.FormatInt(r.RetryAfter.Milliseconds(), 10)
	return newStopped(r, st, metadata.MD{pushbackKey: {ms}})
}

// A retreat makes the errors of calls that a client did not send because it stands
// back from a server, built once for each rounded delay.
type retreat struct {
	cause  error
	reason string
	built  [retreatSteps]atomic.Pointer[stopped]
}

// Delays are rounded up to a geometric ladder: at most a tenth too long.
const (
	retreatSteps    = 160
	shortestRetreat = time.Millisecond
	retreatGrowth   = 1.1
)

// after returns the error with a delay of at least d, but at most about an hour.
func (r *retreat) after(d time.Duration) *stopped {
	i := 0
	if d > shortestRetreat {
		i = min(int(math.Ceil(math.Log(float64(d)/float64(shortestRetreat))/math.Log(retreatGrowth))), retreatSteps-1)
	}
	if s := r.built[i].Load(); s != nil {
		return s
	}
	delay := time.Duration(float64(shortestRetreat) * math.Pow(retreatGrowth, float64(i)))
	st := status.New(codes.Unavailable, r.cause.Error())
	detailed, err := st.WithDetails(
		&errdetails.ErrorInfo{Reason: r.reason, Domain: domain},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)},
	)
	if err == nil { // it fails for OK only
		st = detailed
	}
	r.built[i].CompareAndSwap(nil, newStopped(r.cause, st, nil))
	return r.built[i].Load()
}
