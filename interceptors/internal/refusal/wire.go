package refusal

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

// A Refusal describes a refused call. It has the fields of interceptors.Refusal.
type Refusal struct {
	Reason     string
	RetryAfter time.Duration
	Remote     bool
	Gate       string
}

// From returns the refusal that an error is, or wraps. See interceptors.RefusalFrom.
func From(err error) (r Refusal, ok bool) {
	if s, ok := errors.AsType[*Error](err); ok {
		if s.refusal == nil {
			return Refusal{}, false
		}
		return *s.refusal, true
	}
	if r, ok := errors.AsType[*admit.Refusal](err); ok {
		return *Local(r), true
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.OK {
		return Refusal{}, false
	}
	return FromStatus(st)
}

// FromStatus returns the refusal that a server has sent.
func FromStatus(st *status.Status) (r Refusal, ok bool) {
	if r, ok := fromDetails(st.Proto()); ok {
		return r, true
	}
	return textRefusal(st.Message()) // of a tap
}

// Local returns a gate's refusal in the form of From.
func Local(r *admit.Refusal) *Refusal {
	return &Refusal{Reason: r.Reason.String(), RetryAfter: max(r.RetryAfter, 0), Gate: label(r.Gate)}
}

// mostDetails bounds the details of a status that are read. Ours has two.
const mostDetails = 16

// fromDetails reads the details of a status. They are untrusted.
func fromDetails(st *spb.Status) (r Refusal, ok bool) {
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

// bounded returns the delay within the bounds of a sleep.
func bounded(d time.Duration) time.Duration { return min(max(d, 0), time.Hour) }

// isReason reports whether a string has the form of the reasons in ErrorInfo.
func isReason(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
