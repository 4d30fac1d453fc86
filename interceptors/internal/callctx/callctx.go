// Package callctx holds values that interceptors read from the context of a call, which are
// its class and the reason for which it ended.
package callctx

import (
	"context"
	"errors"
	"time"

	"github.com/weir-go/weir/admit"
)

type classKey struct{}

// WithClass returns a context for calls of a class.
func WithClass(ctx context.Context, c admit.Class) context.Context {
	return context.WithValue(ctx, classKey{}, c)
}

// HopKey is the key under which the context of a call on a server holds a [Hop]. Only
// servers that propagate have one.
type HopKey struct{}

// A Hop is a call that a server runs. Its handler makes further calls for it.
type Hop interface{ CallClass() admit.Class }

// Class returns the class of calls that are made with a context. It is the class of
// [WithClass], or the class of the call that the context belongs to, or admit.Default.
func Class(ctx context.Context) admit.Class {
	// A handler derives its own context from the one of its call, so its own word wins.
	if c, ok := ctx.Value(classKey{}).(admit.Class); ok {
		return c
	}
	if h, ok := ctx.Value(HopKey{}).(Hop); ok {
		return h.CallClass()
	}
	return admit.Default
}

var errOver = errors.New("weir: the call is over")

// Until returns a context with a deadline. The cancel function sets a cause which shows
// that no caller canceled the call. An interceptor further in may see the end of the
// context before it learns how its stream ended.
func Until(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	timed, stop := context.WithDeadline(ctx, deadline)
	ctx, cancel := context.WithCancelCause(timed)
	return ctx, func() { cancel(errOver); stop() }
}

// Canceled reports whether the caller canceled the call.
func Canceled(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), errOver)
}

// TimeIsUp reports whether a call that lasted for had ended because of its own deadline. If
// the server gave up by itself, most of the time is left. A server may answer a little
// before the deadline.
func TimeIsUp(ctx context.Context, had time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= had
}
