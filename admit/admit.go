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

// A Class is the kind of a call: when calls compete for a permit or for a place
// in the queue, the class decides first. The zero Class is Default.
type Class uint8

// The classes, and with them the order in which waiting calls are served:
// Critical, Default, Sheddable, Background.
const (
	// Default is what a call is unless somebody says otherwise.
	Default Class = iota
	// Critical calls are what the service exists for.
	Critical
	// Sheddable calls may be refused whenever others need the room.
	Sheddable
	// Background calls have nobody waiting for them.
	Background

	classes = 4
)

// rank orders classes: 0 is served first.
func (c Class) rank() int {
	switch c {
	case Critical:
		return 0
	case Default:
		return 1
	case Sheddable:
		return 2
	default:
		return 3
	}
}

// String returns the class in lower case, as metrics name it.
func (c Class) String() string {
	return name("class", int(c), "default", "critical", "sheddable", "background")
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

	reasons = 5
)

// String returns the reason in lower case with underscores, as metrics name it.
func (r Reason) String() string {
	return name("reason", int(r), "queue_full", "displaced", "deadline_too_close", "waited_too_long", "draining")
}

func name(what string, i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", what, i)
}

// A Refusal is the error of a call that was not let in. It matches
// [ErrRefused]. Refusals are shared and must not be changed; there are a few
// hundred of them in a process, however many calls are refused.
type Refusal struct {
	// Reason says why.
	Reason Reason
	// RetryAfter is when to come back: it grows with the overload and carries
	// random jitter, so that callers do not come back together.
	RetryAfter time.Duration
}

// Error implements error.
func (r *Refusal) Error() string {
	return ErrRefused.Error() + ": " + r.Reason.String()
}

// Is makes every Refusal match ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
