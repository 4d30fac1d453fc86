package admit

import (
	"errors"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// ErrRefused matches every [Refusal] with errors.Is.
var ErrRefused = errors.New("admit: refused")

// A Reason is why a call was refused: QueueFull, Evicted, DeadlineTooClose,
// WaitedTooLong, Draining, OverShare, OverQuota, TooManyOpen, MemoryPressure, GCPressure,
// ProcessorPressure or UnderPressure. There are no others.
type Reason uint8

// The reasons.
const (
	// QueueFull means that no permit and no place in the queue was free.
	QueueFull Reason = iota
	// Evicted means that the call lost its place in the queue, to another call or
	// because the queue was made smaller.
	Evicted
	// DeadlineTooClose means that the call could not end before its deadline.
	DeadlineTooClose
	// WaitedTooLong means that the call waited for the longest time that the queue
	// allows.
	WaitedTooLong
	// Draining means that the gate is shutting down. Another server may take the call.
	Draining
	// OverShare means that the gate is full, and that the tenant of the call has more
	// than an equal part of its class while other tenants want theirs. ClassConfig.Share has
	// nothing to do with it.
	OverShare
	// OverQuota means that the class or the tenant of the call has used up its quota, as
	// set by [WithQuotas]. The delay of the refusal is exact.
	OverQuota
	// TooManyOpen means that as many calls are open as [WithMaxOpen] allows.
	TooManyOpen
	// MemoryPressure means that the process is close to its memory limit. [WithPressure]
	// causes it.
	MemoryPressure
	// GCPressure means that the garbage collector takes the processors.
	GCPressure
	// ProcessorPressure means that the goroutines of the process wait for processors.
	ProcessorPressure
	// UnderPressure means that a signal of the program reports that a resource runs out.
	UnderPressure

	// NumReasons is the number of reasons. Every Reason is less.
	NumReasons = 12
)

// String returns the reason in lower case with underscores, as in the labels of metrics.
func (r Reason) String() string {
	return name("reason", int(r),
		"queue_full", "evicted", "deadline_too_close", "waited_too_long", "draining", "over_share", "over_quota",
		"too_many_open", "memory_pressure", "gc_pressure", "processor_pressure", "under_pressure")
}

// ofPressure reports whether a [Pressure] is the reason.
func (r Reason) ofPressure() bool { return r >= MemoryPressure && r <= UnderPressure }

// reasonOf maps the reasons of package turn.
var reasonOf = [...]Reason{
	turn.QueueFull:        QueueFull,
	turn.Evicted:          Evicted,
	turn.DeadlineTooClose: DeadlineTooClose,
	turn.OverShare:        OverShare,
}

// A Refusal is the error of a call that a gate refused. It matches [ErrRefused]. Calls
// share refusals, so do not change one. A gate holds a few hundred of them, and up to 1,024
// more for quotas, however many calls it refuses.
type Refusal struct {
	// Reason is why the call was refused.
	Reason Reason
	// RetryAfter is when to come back. It is about the time that a full queue takes to
	// be served. It is longer while more calls come than are served, and never longer
	// than [WithMaxRetryAfter], except for OverQuota. It has random jitter, so that callers do not come back
	// together. While the gate drains, it is 10 to 20 ms. For TooManyOpen it is near
	// the longest, because open calls last.
	RetryAfter time.Duration
	// Gate is the name of the gate.
	Gate string
}

// Error implements error.
func (r *Refusal) Error() string { return ErrRefused.Error() + ": " + r.Reason.String() }

// Is makes every Refusal match ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
