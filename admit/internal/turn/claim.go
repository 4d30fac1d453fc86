package turn

// Shut reports whether a newcomer is refused because it may not evict any waiter from the
// places that it could have. It needs no clock. If it returns false, call Ask.
func (q *Queue) Shut(c Call, limit int) (why Reason, shut bool) {
	if q.cfg.Block {
		return 0, false
	}
	out, why, ok := q.place(c, limit)
	if shut = out == nil && !ok; shut {
		q.lines[c.Class].asked++
	}
	return why, shut
}

// MayRun reports whether a newcomer may run at once, and the cost charged to it. It may
// if the permits are free, if it may hold them, and if no waiter could have them.
func (q *Queue) MayRun(c Call, r Room) (cost int, ok bool) {
	l := &q.lines[c.Class]
	l.demand.begin(r.Now, l.came)
	l.came = r.Now
	if c.Tenant == "" && !q.counted && q.n == 0 { // the usual case needs no lookup
		cost = min(c.Cost, r.Limit)
		return cost, r.InFlight+cost <= r.Limit
	}
	t := q.known(c, r)
	cost = q.charge(t, c.Cost, r)
	switch {
	case r.InFlight+cost > r.Limit, !q.mayHold(t, cost, r), t.calls.n > 0:
		return 0, false
	case l.n > 0 && q.atBound(l, r), q.n > 0 && q.next(r) != nil:
		return 0, false
	}
	return cost, true
}

// atBound reports whether the head of a class waits for the bound of the class.
func (q *Queue) atBound(l *line, r Room) bool {
	w, cost := q.head(l, r)
	return w != nil && !q.lineMayHold(l, cost, r)
}

// known returns the tenant of a newcomer and updates its kind. A tenant without calls gets
// no entry yet.
func (q *Queue) known(c Call, r Room) *Tenant {
	t := q.find(c.Class, c.Tenant)
	if t == nil {
		q.stranger = Tenant{line: &q.lines[c.Class], key: c.Tenant}
		t = &q.stranger
	}
	t.become(q.classify(t, r), r.Now)
	if l := t.line; t.kind == brief && t.key != "" {
		l.wanted.see(r.Now, int64(l.held-l.long.held)+t.wants+int64(c.Cost))
	}
	return t
}

// Hold counts the permits of an admitted call. It returns the tenant that holds them, for
// Return, or nil if the queue need not count them.
func (q *Queue) Hold(c Call, cost int, r Room) *Tenant {
	q.take(cost, r.Now)
	if c.Tenant == "" && !q.counted && q.lines[c.Class].named == 0 {
		return nil
	}
	t := q.tenant(c.Class, c.Tenant)
	q.hold(t, cost, r.Now)
	return t
}

// Return counts permits that came back.
func (q *Queue) Return(t *Tenant, permits int, r Room) {
	q.noteKind(t, r)
	q.hold(t, -permits, r.Now)
}

// FullOf reports whether a call would have found no place, in a dry run. The calls beyond
// the limit, or beyond the bound of the class, stand for the waiters.
func (q *Queue) FullOf(c Call, r Room) bool {
	places := q.cfg.Places
	if places == 0 || (r.InFlight-r.Limit)/c.Cost >= places {
		return true
	}
	over := q.lines[c.Class].held - q.most(c.Class, r.Limit)
	return q.bounded(c.Class) && over/c.Cost >= q.most(c.Class, places)
}
