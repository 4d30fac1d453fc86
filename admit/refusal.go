package admit

import (
	"errors"
	"time"
)

// ErrRefused is matched, with errors.Is, by every refusal of a [Gate].
var ErrRefused = errors.New("admit: refused")

// A Reason is why a call was refused. The set is closed.
type Reason uint8

const (
	// QueueFull: every permit was taken and no place in the queue was left.
	QueueFull Reason = iota
	// Displaced: the call waited, and a newer or more important one took its place.
	Displaced
	// DeadlineTooClose: the call's deadline would have passed before its turn.
	DeadlineTooClose
	// WaitedTooLong: the call waited for as long as the queue allows.
	WaitedTooLong
	// Draining: the gate is being closed; another server may take the call.
	Draining
	// OverShare: the gate is full, and the call's tenant has more than its share
	// of it while others want theirs.
	OverShare
	// OverQuota: the calls of this class or tenant are bounded to a rate, and so many
	// have run already: see [WithQuotas]. The delay is exact.
	OverQuota

	// NumReasons is the number of reasons. Each is less.
	NumReasons = 7
)

// String returns the reason in lower case with underscores, as metrics name it.
func (r Reason) String() string {
	return name("reason", int(r),
		"queue_full", "displaced", "deadline_too_close", "waited_too_long", "draining", "over_share", "over_quota")
}

// A Refusal is the error of a call that was not let in. It matches
// [ErrRefused]. Refusals are shared and must not be changed; a gate has a few
// hundred of them, however many calls it refuses.
type Refusal struct {
	// Reason says why.
	Reason Reason
	// RetryAfter is when to come back: about when a full queue has been served,
	// later while more calls come than are served, and never later than
	// [WithMaxRetryAfter]. It carries random jitter, so that callers do not come
	// back together. While the gate drains it is 10 to 20 ms.
	RetryAfter time.Duration
	// Gate is the name of the gate.
	Gate string
}

// Error implements error.
func (r *Refusal) Error() string {
	return ErrRefused.Error() + ": " + r.Reason.String()
}

// Is makes every Refusal match ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
