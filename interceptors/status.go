package interceptors

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
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
	// gateKey is where ErrorInfo has the name of the gate.
	gateKey  = "gate"
	lastCode = codes.Unauthenticated
)

// codeTable holds the code of refusals for each reason.
type codeTable [admit.UnderPressure + 1]codes.Code

var (
	serverCodes = codeTable{
		admit.QueueFull:        codes.Unavailable,
		admit.Displaced:        codes.Unavailable,
		admit.DeadlineTooClose: codes.Unavailable,
		admit.WaitedTooLong:    codes.Unavailable,
		admit.Draining:         codes.Unavailable,
		admit.OverShare:        codes.ResourceExhausted,
		admit.OverQuota:        codes.ResourceExhausted,

		admit.MemoryPressure:    codes.Unavailable,
		admit.GCPressure:        codes.Unavailable,
		admit.ProcessorPressure: codes.Unavailable,
		admit.UnderPressure:     codes.Unavailable,
	}
	clientCodes = codeTable{
		admit.QueueFull:        codes.ResourceExhausted,
		admit.Displaced:        codes.ResourceExhausted,
		admit.DeadlineTooClose: codes.ResourceExhausted,
		admit.WaitedTooLong:    codes.ResourceExhausted,
		admit.Draining:         codes.Unavailable,
		admit.OverShare:        codes.ResourceExhausted,
		admit.OverQuota:        codes.ResourceExhausted,

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

// sound returns a code with which a call can be refused.
func sound(c codes.Code) codes.Code {
	if c == codes.OK || c > lastCode {
		return codes.Unknown
	}
	return c
}

// A stopped is the error of a call that was not let in: a refusal, or the end of its
// context before its turn. It is shared and never changes.
type stopped struct {
	cause   error // a *admit.Refusal, a sentinel, or the context's error
	status  *status.Status
	refusal *Refusal    // nil if the context ended
	trailer metadata.MD // of a server's refusal
	text    string
}

func (s *stopped) Error() string { return s.text }

// GRPCStatus is how package status finds the status of an error.
func (s *stopped) GRPCStatus() *status.Status { return s.status }

// Unwrap makes the cause visible to errors.Is and errors.As.
func (s *stopped) Unwrap() error { return s.cause }

// trailerFor returns what the caller of a call with that context is told. gRPC sleeps
// for the delay even if the deadline comes first, and the caller then never learns of
// the refusal. It also has little use for an attempt with less time left than it has
// just waited. So such a call is not retried.
func (s *stopped) trailerFor(ctx context.Context) metadata.MD {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 2*s.refusal.RetryAfter {
		return dontRetry
	}
	return s.trailer
}

func newStopped(cause error, st *status.Status, r *Refusal) *stopped {
	return &stopped{cause: cause, status: st, refusal: r, text: st.Err().Error()}
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

// stop returns the error for a call that the gate did not let in.
func (c *config) stop(err error) *stopped {
	if r, ok := err.(*admit.Refusal); ok { //nolint:errorlint // Acquire does not wrap it, and this is the hot path
		return c.refusal(r)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errDeadline
	case errors.Is(err, context.Canceled):
		return errCanceled
	}
	return newStopped(err, status.FromContextError(err), nil) // a context of somebody's own making
}

// refusal returns the error for a refusal. Each is built once, because a gate shares a
// few hundred refusals among all its calls, and so the map is bounded. The delays of
// quotas are not.
func (c *config) refusal(r *admit.Refusal) *stopped {
	if r.Reason == admit.OverQuota {
		return c.overQuota.of(r, c)
	}
	slot := c.usual.slot(r)
	usual := slot.Load()
	if usual != nil && usual.cause == error(r) { //nolint:errorlint // is it this very one
		return usual
	}
	v, ok := c.built.Load(r)
	if !ok {
		v, _ = c.built.LoadOrStore(r, c.newRefusal(r))
	}
	s := v.(*stopped) //nolint:forcetypeassert // the map holds nothing else
	if usual == nil {
		slot.CompareAndSwap(nil, s)
	}
	return s
}

// usualErrors holds some of the errors in config.built, for a faster way to them. The
// first that needs a slot keeps it.
type usualErrors [256]atomic.Pointer[stopped]

func (u *usualErrors) slot(r *admit.Refusal) *atomic.Pointer[stopped] {
	i := uint64(r.RetryAfter/time.Millisecond) + uint64(r.Reason)<<5
	return &u[i%uint64(len(u))]
}

func (c *config) newRefusal(r *admit.Refusal) *stopped {
	is := local(r)
	text := serverText(r.Reason, is.Gate) + advice(r)
	if c.leaves {
		text = clientText(r.Reason, is.Gate)
	}
	s := newStopped(r, newStatus(c.codes.of(r.Reason), text, is), is)
	s.trailer = metadata.MD{pushbackKey: {strconv.FormatInt(is.RetryAfter.Milliseconds(), 10)}}
	return s
}

// newStatus returns the status of a refusal, with details.
func newStatus(c codes.Code, text string, r *Refusal) *status.Status {
	info := &errdetails.ErrorInfo{Reason: strings.ToUpper(r.Reason), Domain: domain}
	if r.Gate != "" {
		info.Metadata = map[string]string{gateKey: r.Gate}
	}
	details := []protoadapt.MessageV1{info}
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	st := status.New(c, text)
	if detailed, err := st.WithDetails(details...); err == nil { // it fails for OK only
		return detailed
	}
	return st
}

// tapError returns the error of a tap handle. It has no details, which would have to be
// marshalled in the connection's only reader; see textRefusal.
func (c *config) tapError(g *admit.Gate, why admit.Reason) error {
	return status.Error(c.codes.of(why), serverText(why, label(g.Name())))
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
	is := &Refusal{Reason: strings.ToLower(r.reason), RetryAfter: delay}
	st := newStatus(codes.Unavailable, r.cause.Error()+": retry in "+rounded(delay).String(), is)
	r.built[i].CompareAndSwap(nil, newStopped(r.cause, st, is))
	return r.built[i].Load()
}
