package refusal

import (
	"errors"
	"strings"
	"time"
	"unicode"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/details"
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

// fromDetails reads the details of a status. They are untrusted.
func fromDetails(st *spb.Status) (r Refusal, ok bool) {
	d := details.Of(st)
	if d.Reason == "" {
		return Refusal{}, false
	}
	r = Refusal{Reason: strings.ToLower(d.Reason), RetryAfter: d.RetryAfter, Remote: true}
	if gate := d.Metadata[gateKey]; len(gate) <= longestLabel && isPrintable(gate) {
		r.Gate = gate
	}
	return r, true
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
