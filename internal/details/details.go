// Package details finds a refusal in an error, and reads the details of its status. They come
// over the wire and are untrusted.
package details

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
)

// Domain is the domain of weir's own reasons in ErrorInfo.
const Domain = "weir"

// A Refusal holds the details of a status that concern refusals. The zero value has none.
type Refusal struct {
	// Reason is the reason that weir gave, in upper case, such as "QUEUE_FULL". It is empty if
	// the status is not one of weir.
	Reason string
	// Metadata belongs to Reason. It is not checked.
	Metadata map[string]string
	// RetryAfter is the delay of RetryInfo, of any server, from 0 to one hour.
	RetryAfter time.Duration
}

const (
	// most bounds the details that are read. A refusal of weir has two.
	most = 16
	// longestReason bounds a reason, in bytes.
	longestReason = 64
)

// Of returns the refusal in the details of a status, which may be nil. The first reason of
// weir counts, and the last delay. Details that cannot be read are ignored.
func Of(st *spb.Status) (r Refusal) {
	all := st.GetDetails()
	for _, d := range all[:min(len(all), most)] {
		var info errdetails.ErrorInfo
		var retry errdetails.RetryInfo
		switch {
		case d.MessageIs(&info):
			if r.Reason == "" && d.UnmarshalTo(&info) == nil && info.GetDomain() == Domain && isReason(info.GetReason()) {
				r.Reason, r.Metadata = info.GetReason(), info.GetMetadata()
			}
		case d.MessageIs(&retry):
			if d.UnmarshalTo(&retry) == nil && retry.GetRetryDelay().IsValid() {
				r.RetryAfter = bounded(retry.GetRetryDelay().AsDuration())
			}
		}
	}
	return r
}

// bounded returns the delay within the bounds of a sleep.
func bounded(d time.Duration) time.Duration { return min(max(d, 0), time.Hour) }

// isReason reports whether a string has the form of the reasons in ErrorInfo.
func isReason(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	return s != "" && len(s) <= longestReason && strings.Trim(s, letters) == ""
}
