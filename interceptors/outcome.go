package interceptors

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/callctx"
	"github.com/weir-go/weir/interceptors/internal/latency"
)

// outcome says what the end of a unary call means to the limit. cc is nil on a server.
func (m *member) outcome(
	ctx context.Context, c *config, cc *grpc.ClientConn, method string, permit *admit.Permit, err error,
) admit.Outcome {
	if err == nil && m.paces.Learns() {
		m.paces.Of(cc, method).Saw(permit.Held(), m.paces.Now())
	}
	switch {
	case err != nil && ours(err):
		return admit.Ignored
	case c.outcomeOf != nil:
		return c.outcomeOf(err)
	case err == nil:
		return admit.Success
	}
	switch st := statusOf(err); st.Code() {
	case codes.DeadlineExceeded:
		if m.fair(ctx, cc, method, permit.Held()) {
			return admit.Overload
		}
		return admit.Ignored
	case codes.Unavailable:
		if unreached(st) {
			return admit.Ignored
		}
		return admit.Overload
	case codes.ResourceExhausted:
		if full(st) {
			return admit.Overload
		}
		return admit.Ignored
	default:
		return admit.Ignored
	}
}

// gatePatience is the time without an answer after which a gate takes any deadline for a
// fair one that is as long as the method's calls usually are, or any at all of a method
// that never answered.
const gatePatience = 250 * time.Millisecond

// fair reports whether a call that ended with DEADLINE_EXCEEDED had the time that its
// method takes without congestion. A call that the other side ended by itself had.
func (m *member) fair(ctx context.Context, cc *grpc.ClientConn, method string, had time.Duration) bool {
	p := m.paces.Of(cc, method)
	m.paces.Wonder()
	dry := p.Late(m.paces.Now())
	if !callctx.TimeIsUp(ctx, had) {
		return true
	}
	mean, dev := p.Unloaded()
	return latency.Fair(had, mean, dev, dry, gatePatience)
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

// full reports whether a RESOURCE_EXHAUSTED says that a server, or a client further on,
// had no room for the call. Without a word from weir it is taken for a quota: that of its
// caller, which says nothing about others.
func full(st *status.Status) bool {
	r, ok := wireRefusal(st.Proto())
	if !ok {
		r, ok = textRefusal(st.Message()) // of a tap
	}
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

// unreached reports whether an UNAVAILABLE was made by gRPC here because it had no
// connection. Such a call never was on a server, so it was none too many there.
func unreached(st *status.Status) bool {
	return slices.ContainsFunc(unconnected, func(text string) bool { return strings.Contains(st.Message(), text) })
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

// statusOf returns the status that grpc sends for a handler's error: unlike
// status.Convert it knows the errors of contexts.
func statusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}

func codeOf(err error) codes.Code { return statusOf(err).Code() }
