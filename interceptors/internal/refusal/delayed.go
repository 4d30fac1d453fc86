package refusal

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// A Delayed makes the errors of calls that a breaker or throttle refuses. Each is built once
// for a rounded delay. It is safe for concurrent use.
type Delayed struct {
	Cause  error
	Reason string
	built  [delaySteps]atomic.Pointer[Error]
}

// Delays are rounded up to a geometric ladder, at most a tenth too long.
const (
	delaySteps    = 160
	shortestDelay = time.Millisecond
	delayGrowth   = 1.1
)

// After returns the error with a delay of at least d. The delay is at most about an hour.
func (r *Delayed) After(d time.Duration) *Error {
	i := 0
	if d > shortestDelay {
		i = min(int(math.Ceil(math.Log(float64(d)/float64(shortestDelay))/math.Log(delayGrowth))), delaySteps-1)
	}
	if s := r.built[i].Load(); s != nil {
		return s
	}
	delay := time.Duration(float64(shortestDelay) * math.Pow(delayGrowth, float64(i)))
	is := &Refusal{Reason: strings.ToLower(r.Reason), RetryAfter: delay}
	st := newStatus(codes.Unavailable, r.Cause.Error()+": retry in "+rounded(delay).String(), is)
	r.built[i].CompareAndSwap(nil, newError(r.Cause, st, is))
	return r.built[i].Load()
}
