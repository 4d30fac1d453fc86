package breaker

// Hooks are called as circuits change. Every field may be nil. They run
// outside any lock, in the goroutine of a call or of gRPC, and must be quick. The
// changes of one circuit come one at a time and in order; those of different
// circuits may come at the same time. A hook that panics harms nothing.
type Hooks struct {
	// StateChanged is called when the circuit of a target and a full method name
	// has changed. Both are "*" for the circuit that the last ones share.
	StateChanged func(target, method string, from, to State)
	// Panicked is called with what another hook, or the function of WithVerdict,
	// panicked with.
	Panicked func(value any)
}

// changed tells the hooks of a change.
func (b *Breaker) changed(c *circuit, ch change) {
	for _, h := range b.hooks {
		if h.StateChanged != nil {
			b.guard(func() { h.StateChanged(c.Target, c.Method, ch.from, ch.to) })
		}
	}
}

// guard runs f and tells the hooks of its panic.
func (b *Breaker) guard(f func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		for _, h := range b.hooks {
			if h.Panicked != nil {
				func() {
					defer func() { _ = recover() }()
					h.Panicked(v)
				}()
			}
		}
	}()
	f()
}
