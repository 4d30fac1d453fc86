package breaker

// Hooks are called when circuits change. Every field may be nil. They run without locks, in
// the goroutine of a call or of gRPC, and must be quick. Changes of one circuit are
// reported one at a time and in order. Changes of different circuits may be reported at the
// same time. A panic of a hook is recovered
// and given to Panicked, and the call goes on.
type Hooks struct {
	// StateChanged is called when the circuit of a target and a full method name has
	// changed. Both are "*" for the shared circuit.
	StateChanged func(target, method string, from, to State)
	// Panicked is called with the value of a panic of another hook, or of the function of
	// WithVerdict.
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
