// Package inside lets other packages of weir call functions of package admit that are not
// exported. They are of no use to programs.
package inside

import (
	"context"
	"time"
)

// Admit holds a [Gates] for the types of package admit, which sets it when it is
// initialized, before any package that imports it:
//
//	inside.Admit.(inside.Gates[*admit.Gate, admit.Call, admit.Class, admit.Reason, admit.Option])
//
// It is not typed here because admit imports this package.
var Admit any

// Gates are functions of gates. They are safe for concurrent use. Functions that take
// a gate accept one that admit.New did not make.
type Gates[Gate, Call, Class, Reason, Option any] struct {
	// Full reports whether a call that came now would be refused or evict a waiter. It
	// is cheap while a permit is free.
	Full func(Gate) bool
	// TurnAway refuses a call, and counts the refusal, if the gate is full and Acquire
	// would refuse the call at once, whatever its deadline. It never blocks. If it
	// returns false, ask Acquire.
	TurnAway func(context.Context, Gate, Call) (why Reason, away bool)
	// Urgent returns the class of the highest priority that has a waiter for permits
	// which any class may hold. It returns false if there is none.
	Urgent func(Gate) (Class, bool)
	// Higher returns the class of the higher priority, and Lower that of the lower. If
	// the priorities are equal, both return a.
	Higher, Lower func(g Gate, a, b Class) Class
	// Below returns the class of the next lower priority, or the class itself if it has
	// the lowest.
	Below func(Gate, Class) Class
	// Room returns the number of calls that the gate is meant to hold at a time. That is
	// its limit and its queue. A queue without a Capacity counts as the limit, and at
	// least 32.
	Room func(Gate) int
	// Adapts reports whether the limit is one of package limit that learns from the
	// calls that end. Such a limit learns nothing from streams.
	Adapts func(Gate) bool
	// CountStall counts a stream that was ended because its client took no messages.
	CountStall func(Gate)
	// Stalled logs that a stream was ended because its client took no messages, if the gate
	// has a logger. It writes at most one line a second.
	Stalled func(ctx context.Context, g Gate, method string, bound time.Duration)
	// RefuseIf returns an option for tests. The gate calls next for every call, with its
	// lock held, and refuses the call for the reason if refuse is true.
	RefuseIf func(next func() (why Reason, refuse bool)) Option
}
