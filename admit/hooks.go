package admit

import (
	"context"
	"sync/atomic"
	"time"
)

// Hooks are functions that a gate calls. Any of them may be nil. Each gets the context that
// Acquire got, and the call with a class of the gate. Hooks run in the
// goroutine of the call and without the gate's lock. Many may run at the same time, so
// they must be safe for concurrent use, and quick. A panic in a hook is counted in
// Stats.Panics and does not affect the call.
type Hooks struct {
	// Waited is called when a call is admitted after waiting.
	Waited func(ctx context.Context, c Call, wait time.Duration)
	// Refused is called when a call is refused, after it has waited for wait. In a dry
	// run it is called for each call that would have been refused.
	Refused func(ctx context.Context, c Call, why Reason, wait time.Duration)
	// Left is called when the context of a call ends before the call is admitted. Err is
	// the context's error.
	Left func(ctx context.Context, c Call, wait time.Duration, err error)
	// LimitChanged is called after a change of the limit.
	LimitChanged func(from, to int)
	// Panicked is called with the value of a panic in the algorithm or in another hook.
	Panicked func(value any)
}

// A hookSet calls the hooks of a gate and counts their panics. It is safe for concurrent use. Call
// its methods without the gate's lock.
type hookSet struct {
	hooks  atomic.Pointer[[]Hooks] // nil if New did not make the gate
	panics atomic.Uint64
}

// use replaces the hooks.
func (h *hookSet) use(hooks []Hooks) { h.hooks.Store(&hooks) }

// all returns the hooks.
func (h *hookSet) all() []Hooks {
	if hooks := h.hooks.Load(); hooks != nil {
		return *hooks
	}
	return nil
}

func (h *hookSet) waited(ctx context.Context, c Call, wait time.Duration) {
	h.each(func(to *Hooks) {
		if to.Waited != nil {
			to.Waited(ctx, c, wait)
		}
	})
}

func (h *hookSet) refused(ctx context.Context, c Call, why Reason, wait time.Duration) {
	if len(h.all()) == 0 { // the usual case needs no closure
		return
	}
	h.each(func(to *Hooks) {
		if to.Refused != nil {
			to.Refused(ctx, c, why, wait)
		}
	})
}

func (h *hookSet) left(ctx context.Context, c Call, wait time.Duration, err error) {
	h.each(func(to *Hooks) {
		if to.Left != nil {
			to.Left(ctx, c, wait, err)
		}
	})
}

func (h *hookSet) limitChanged(from, to int) {
	if from == to {
		return
	}
	h.each(func(hooks *Hooks) {
		if hooks.LimitChanged != nil {
			hooks.LimitChanged(from, to)
		}
	})
}

// panicked counts a panic and reports it. A hook that panics here is not reported.
func (h *hookSet) panicked(v any) {
	h.panics.Add(1)
	for _, to := range h.all() {
		if to.Panicked != nil {
			func() {
				defer func() { _ = recover() }()
				to.Panicked(v)
			}()
		}
	}
}

// each runs f for each set of hooks. A panic in one does not stop the others.
func (h *hookSet) each(f func(*Hooks)) {
	hooks := h.all()
	for i := range hooks {
		func() {
			defer func() {
				if v := recover(); v != nil {
					h.panicked(v)
				}
			}()
			f(&hooks[i])
		}()
	}
}
