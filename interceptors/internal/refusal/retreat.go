package refusal

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// A Retreat makes the errors of calls that a client did not send because it stands
// back from a server, built once for each rounded delay.
type Retreat struct {
	Cause  error
	Reason string
	built  [retreatSteps]atomic.Pointer[Error]
}

// Delays are rounded up to a geometric ladder: at most a tenth too long.
const (
	retreatSteps    = 160
	shortestRetreat = time.Millisecond
	retreatGrowth   = 1.1
)

// After returns the error with a delay of at least d, but at most about an hour.
func (r *Retreat) After(d time.Duration) *Error {
	i := 0
	if d > shortestRetreat {
		i = min(int(math.Ceil(math.Log(float64(d)/float64(shortestRetreat))/math.Log(retreatGrowth))), retreatSteps-1)
	}
	if s := r.built[i].Load(); s != nil {
		return s
	}
	delay := time.Duration(float64(shortestRetreat) * math.Pow(retreatGrowth, float64(i)))
	is := &Refusal{Reason: strings.ToLower(r.Reason), RetryAfter: delay}
	st := newStatus(codes.Unavailable, r.Cause.Error()+": retry in "+rounded(delay).String(), is)
	r.built[i].CompareAndSwap(nil, newError(r.Cause, st, is))
	return r.built[i].Load()
}
