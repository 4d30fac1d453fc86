package refusal

import (
	"sync/atomic"

	"github.com/weir-go/weir/admit"
)

// quotaErrors holds the latest errors of calls over their quota. Their delays are exact, so
// their number is not bounded. Calls that are refused in the same millisecond share one
// error.
type quotaErrors [256]atomic.Pointer[Error]

// of returns the error for a call over its quota.
func (q *quotaErrors) of(r *admit.Refusal, m *Maker) *Error {
	slot := &q[r.RetryAfter.Milliseconds()%int64(len(q))]
	if s := slot.Load(); s != nil && s.cause == error(r) { //nolint:errorlint // is it this very one
		return s
	}
	s := m.build(r)
	slot.Store(s)
	return s
}
