package admit

// Limit returns how many permits there are now. It takes no lock.
func (g *Gate) Limit() int { return g.load().limit() }

// Urgent returns the class of the highest priority of which a call waits now for
// permits that any class may hold, and whether there is one. A call that holds a
// permit meanwhile may be what it waits for.
func (g *Gate) Urgent() (Class, bool) {
	if s := g.load(); !s.slow() {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.turns.Urgent(g.room(g.load(), g.now()))
	return classOf(c), ok
}

// Higher returns the class of the higher priority, and Lower that of the lower;
// the first if they are equal.
func (g *Gate) Higher(a, b Class) Class {
	if g.priority(b) > g.priority(a) {
		return b
	}
	return a
}

// Lower is described at [Gate.Higher].
func (g *Gate) Lower(a, b Class) Class {
	if g.priority(b) < g.priority(a) {
		return b
	}
	return a
}

// Below returns the class of the next lower priority, or c if there is none.
func (g *Gate) Below(c Class) Class {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &g.cfg.classes
	for _, other := range t.order[:t.n] {
		if t.priority(other) < t.priority(t.class(c)) {
			return other
		}
	}
	return c
}

func (g *Gate) priority(c Class) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.classes.priority(g.cfg.classes.class(c))
}
