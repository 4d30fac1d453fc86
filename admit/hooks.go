package admit

import "time"

// Hooks are called as calls pass. Every field may be nil. They run outside the
// gate's lock, in the goroutine of the call, and may be called at the same
// time from many: they must be safe for that, and quick. A hook that panics is
// counted in Stats.Panics; the call goes on as if it had not.
type Hooks struct {
	// Waited is called when a call that had to wait was let in.
	Waited func(c Class, wait time.Duration)
	// Refused is called when a call was refused, after waiting for wait. In a
	// dry run it is called for calls that would have been refused.
	Refused func(c Class, why Reason, wait time.Duration)
	// Left is called when a call left by itself, before its turn: err is its
	// context's error.
	Left func(c Class, wait time.Duration, err error)
	// LimitChanged is called when the limit has changed.
	LimitChanged func(from, to int)
	// Panicked is called with what an algorithm or another hook panicked with.
	Panicked func(value any)
}

// holding runs what tells hooks of a call that was given a permit. If a hook
// ends the goroutine (runtime.Goexit), the permit goes to the next call.
func (g *Gate) holding(c claim, tell func()) {
	told := false
	defer func() {
		if !told {
			g.giveBack(c, g.now())
		}
	}()
	tell()
	told = true
}

// each runs f for every set of hooks, and survives their panics.
func (g *Gate) each(hooks []Hooks, f func(*Hooks)) {
	for i := range hooks {
		g.guard(hooks, func() { f(&hooks[i]) })
	}
}

// guard runs f; a panic is counted and told to the Panicked hooks.
func (g *Gate) guard(hooks []Hooks, f func()) {
	defer func() {
		if v := recover(); v != nil {
			g.panicked(hooks, v)
		}
	}()
	f()
}

func (g *Gate) panicked(hooks []Hooks, v any) {
	g.panics.Add(1)
	for _, h := range hooks {
		if h.Panicked != nil {
			func() {
				defer func() { _ = recover() }()
				h.Panicked(v)
			}()
		}
	}
}

// hooks returns the hooks that there are now.
func (g *Gate) hooks() []Hooks {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.hooks
}

// tellRefused tells the hooks of a refusal that was counted.
func (g *Gate) tellRefused(hooks []Hooks, c Class, why Reason, waited time.Duration) {
	if len(hooks) == 0 {
		return
	}
	g.each(hooks, func(h *Hooks) {
		if h.Refused != nil {
			h.Refused(c, why, waited)
		}
	})
}

func (g *Gate) countWaited(c Class, waited time.Duration) {
	g.mu.Lock()
	g.totals.waited++
	g.totals.waitTime.add(span{rest: waited})
	hooks := g.cfg.hooks
	g.mu.Unlock()
	g.each(hooks, func(h *Hooks) {
		if h.Waited != nil {
			h.Waited(c, waited)
		}
	})
}

// left counts a call that left by itself and returns err.
func (g *Gate) left(c Class, waited time.Duration, err error) error {
	g.mu.Lock()
	c = g.cfg.classes.class(c)
	g.totals.left++
	g.mu.Unlock()
	g.tellLeft(c, waited, err)
	return err
}

// tellLeft tells the hooks of a call that left and was counted.
func (g *Gate) tellLeft(c Class, waited time.Duration, err error) {
	g.each(g.hooks(), func(h *Hooks) {
		if h.Left != nil {
			h.Left(c, waited, err)
		}
	})
}
