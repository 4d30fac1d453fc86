package interceptors

import (
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
)

// quotaRefusals holds the errors of calls over their quota that were built last. Their
// delays are exact, so there is no end of them. Calls that are refused in the same
// millisecond share one.
var quotaRefusals [256]atomic.Pointer[quotaStopped]

type quotaStopped struct {
	*stopped

	refusal *admit.Refusal
	code    codes.Code
}

// quotaRefusal returns the error for a call over its quota.
func quotaRefusal(r *admit.Refusal, c codes.Code) *stopped {
	slot := &quotaRefusals[r.RetryAfter.Milliseconds()%int64(len(quotaRefusals))]
	if s := slot.Load(); s != nil && s.refusal == r && s.code == c {
		return s.stopped
	}
	s := &quotaStopped{newRefusal(r, c), r, c}
	slot.Store(s)
	return s.stopped
}
