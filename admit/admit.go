// Package admit decides who may run: a [Gate] hands out permits up to a limit,
// lets a bounded number of callers wait, and refuses the rest at once.
//
// All locking and waiting of the call path is here. Package limit decides how
// many permits there are; package interceptors brings calls and turns refusals
// into gRPC statuses.
package admit

import (
	"errors"
	"fmt"
	"time"
)

// ErrRefused is matched, with errors.Is, by every refusal of a [Gate].
var ErrRefused = errors.New("admit: refused")

// ErrConfig is wrapped by every error of [New] and [Gate.Update].
var ErrConfig = errors.New("admit: invalid configuration")

// A Call is what a gate is told of a call that wants to run. The zero Call is of
// class Default, of nobody in particular, and takes one permit.
type Call struct {
	// Class is what kind of call it is. One that the gate does not know counts
	// as Background.
	Class Class
	// Tenant is whose call it is. Tenants of one class that compete get equal
	// shares of it; calls without a tenant are together one. The gate keeps the
	// string for as long as the tenant has a call that runs or waits, and
	// nothing afterwards: there may be any number of them. Take it from what was
	// authenticated, never from a header that anyone can write. Give all calls
	// of a gate a tenant, or none.
	Tenant string
	// Cost is how many permits the call takes; zero and less mean one. A call
	// that costs more than the limit, when it comes or when its turn does, takes
	// all permits there are then.
	Cost int

	quota quotaState
}

// An Outcome is how a call ended, as the limit sees it.
type Outcome uint8

const (
	// Ignored says nothing about the load: the caller left, the handler
	// panicked, the arguments were wrong. It is the zero Outcome.
	Ignored Outcome = iota
	// Success is a call that ended well; its latency is a sample.
	Success
	// Overload is a call that failed because something was too busy.
	Overload

	outcomes = 3
)

// String returns the outcome in lower case, as metrics name it.
func (o Outcome) String() string {
	return name("outcome", int(o), "ignored", "success", "overload")
}

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
	// MemoryPressure: the process is close to its memory limit: see [WithPressure].
	MemoryPressure
	// GCPressure: the garbage collector takes the processors.
	GCPressure
	// ProcessorPressure: everything in the process waits for a processor.
	ProcessorPressure
	// UnderPressure: a signal of the program's own says that a resource runs out.
	UnderPressure

	reasons = 11
)

// String returns the reason in lower case with underscores, as metrics name it.
func (r Reason) String() string {
	return name("reason", int(r),
		"queue_full", "displaced", "deadline_too_close", "waited_too_long", "draining", "over_share", "over_quota",
		"memory_pressure", "gc_pressure", "processor_pressure", "under_pressure")
}

// ofPressure reports whether the process, not the gate, has no room.
func (r Reason) ofPressure() bool { return r >= MemoryPressure && r <= UnderPressure }

func name(what string, i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", what, i)
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
