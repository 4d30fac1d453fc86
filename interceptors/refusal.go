package interceptors

import (
	"time"

	"github.com/weir-go/weir/interceptors/internal/refusal"
)

// A Refusal is what [RefusalFrom] finds in the error of a refused call.
type Refusal struct {
	// Reason is why the call was refused: that of an [admit.Reason], as its String
	// returns it, or "throttled" or "circuit_open". A newer server may know others.
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
	is, ok := refusal.From(err)
	return Refusal(is), ok
}
