package interceptors

import (
	"time"

	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// A Refusal describes a refused call. [RefusalFrom] finds it in an error.
type Refusal struct {
	// Reason is the String of an [admit.Reason], "throttled" or "circuit_open". It is
	// "send_stalled" for a stream that the server admitted and ended later; see
	// StreamRule.SendStall. A newer server may send other reasons. It is never empty, and at
	// most 64 letters, digits and underscores.
	Reason string
	// RetryAfter is the delay before a retry. The delay of a remote refusal is at most an
	// hour. Zero means that the refusal has no delay.
	RetryAfter time.Duration
	// Remote reports whether the refusal came over the wire. Otherwise a gate, throttle or
	// breaker of this process made it.
	Remote bool
	// Gate is the name of the gate, up to 64 bytes. It is empty for a throttle or a breaker,
	// and for a remote refusal without a name.
	Gate string
}

// RefusalFrom returns the refusal that an error is, or wraps. It knows a gate's
// *[admit.Refusal], the errors of this package and the packages below, and the status of a
// server with weir, also after gRPC has retried. For any other error, nil included, ok is
// false. If the context of a call ended while it waited for a permit, the call was not
// refused.
//
//	if r, ok := interceptors.RefusalFrom(err); ok && r.Remote {
//		log.Printf("the server's gate %s refuses: %s, retry in %v", r.Gate, r.Reason, r.RetryAfter)
//	}
//
// The contents of a remote refusal are the server's claim, within the bounds of the fields.
func RefusalFrom(err error) (r Refusal, ok bool) {
	is, ok := refusal.From(err)
	return Refusal(is), ok
}
