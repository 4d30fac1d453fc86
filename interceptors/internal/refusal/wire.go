package refusal

import (
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
	if r, ok = find(err, local); ok {
		return r, true
	}
	if r, ok = find(err, remote); ok {
		return r, true
	}
	st, ok := status.FromError(err) // by an As method
	if !ok || st.Code() == codes.OK {
		return Refusal{}, false
	}
	return FromStatus(st)
}

// find returns the first refusal that is finds in an error or in the errors that it wraps.
func find(err error, is func(error) (Refusal, bool)) (r Refusal, ok bool) {
	for e := range details.Tree(err) {
		if r, ok = is(e); ok {
			return r, true
		}
	}
	return Refusal{}, false
}

// local recognizes a refusal of this process.
func local(err error) (Refusal, bool) {
	switch err := err.(type) { //nolint:errorlint // find unwraps
	case *Error:
		if err.refusal != nil {
			return *err.refusal, true
		}
	case *admit.Refusal:
		if err != nil {
			return *Local(err), true
		}
	}
	return Refusal{}, false
}

// remote recognizes the status of a server.
func remote(err error) (Refusal, bool) {
	s, ok := err.(interface{ GRPCStatus() *status.Status })
	if !ok {
		return Refusal{}, false
	}
	st := s.GRPCStatus()
	if st.Code() == codes.OK {
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
