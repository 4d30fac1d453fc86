package interceptors

import (
	"errors"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
)

// A Refusal is what [RefusalFrom] finds in the error of a refused call.
type Refusal struct {
	// Reason is why the call was refused: that of an [admit.Reason], as its String
	// returns it, or "throttled" or "circuit_open". It is "send_stalled" for a stream that
	// the server had let in, and ended: see [WithSendStall]. A newer server may know others.
	// It is never empty, and at most 64 letters, digits and underscores.
	Reason string
	// RetryAfter is when to come back; of a remote refusal at most an hour. Zero means
	// that the refusal does not say.
	RetryAfter time.Duration
	// Remote reports that the refusal has come over the wire. Otherwise a gate,
	// throttle or breaker of this process made it.
	Remote bool
	// Gate is the name of the gate, up to 64 bytes. It is empty for a throttle or a
	// breaker, and where a remote refusal does not say.
	Gate string
}

// RefusalFrom returns what an error says of the refusal that it is, or that it wraps:
// of a gate's own *[admit.Refusal], of a call that an interceptor of this package did
// not let in or did not send, or of a status from a server with weir, also after gRPC
// has retried. For any other error, nil included, ok is false. A call whose context
// ended while it waited for a permit was not refused.
//
//	if r, ok := interceptors.RefusalFrom(err); ok && r.Remote {
//		log.Printf("the server's gate %s refuses: %s, retry in %v", r.Gate, r.Reason, r.RetryAfter)
//	}
//
// A remote refusal says what the server says, within the bounds of the fields.
func RefusalFrom(err error) (r Refusal, ok bool) {
	if s, ok := errors.AsType[*stopped](err); ok {
		if s.refusal == nil {
			return Refusal{}, false
		}
		return *s.refusal, true
	}
	if r, ok := errors.AsType[*admit.Refusal](err); ok {
		return *local(r), true
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.OK {
		return Refusal{}, false
	}
	if r, ok := wireRefusal(st.Proto()); ok {
		return r, true
	}
	return textRefusal(st.Message())
}

// local returns a gate's refusal as RefusalFrom does.
func local(r *admit.Refusal) *Refusal {
	return &Refusal{Reason: r.Reason.String(), RetryAfter: max(r.RetryAfter, 0), Gate: label(r.Gate)}
}

// mostDetails is how many details of a status are looked at. Ours has two.
const mostDetails = 16

// wireRefusal reads the details of a status. They may be anything.
func wireRefusal(st *spb.Status) (r Refusal, ok bool) {
	details := st.GetDetails()
	for _, d := range details[:min(len(details), mostDetails)] {
		var info errdetails.ErrorInfo
		var retry errdetails.RetryInfo
		switch {
		case d.MessageIs(&info):
			if d.UnmarshalTo(&info) != nil || info.GetDomain() != domain || !isReason(info.GetReason()) || ok {
				continue
			}
			r.Reason, r.Remote, ok = strings.ToLower(info.GetReason()), true, true
			if gate := info.GetMetadata()[gateKey]; len(gate) <= longestLabel && isPrintable(gate) {
				r.Gate = gate
			}
		case d.MessageIs(&retry):
			if d.UnmarshalTo(&retry) == nil && retry.GetRetryDelay().IsValid() {
				r.RetryAfter = bounded(retry.GetRetryDelay().AsDuration())
			}
		}
	}
	if !ok {
		return Refusal{}, false
	}
	return r, true
}

// bounded returns a delay that can be slept.
func bounded(d time.Duration) time.Duration { return min(max(d, 0), time.Hour) }

// isReason reports whether a string has the form of the reasons in ErrorInfo.
func isReason(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
