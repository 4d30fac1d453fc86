package interceptors

import (
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// passLength is how long a pass is: crypto/rand's Text, more than 128 bits.
const passLength = 26

// mostNested is how many calls at once may run under one permit.
const mostNested = 8

// A pass is a secret that stands for a permit which a call holds in this process.
// It goes out with the calls that are made for it. A call that comes back with it
// runs under that permit: if it had to wait for one of its own, and all were held
// by calls that wait for such calls, none would ever end.
//
// Who knows a pass can run a bounded number of calls while that one permit is
// held. It is made when it is first needed, and worthless when the permit is
// released.
type passes struct {
	mu     sync.Mutex // guards what follows
	held   map[string]*mark
	nested int // calls that run under somebody else's permit
}

// passes returns the passes that calls made for this one carry: those that it
// brought, and those for its permits, one for each gate in its chain; of more
// than may travel the last.
func (m *mark) passes() []string {
	all := slices.Clone(m.brought)
	for ; m != nil; m = m.outer {
		if pass := m.ownPass(); pass != "" {
			all = append(all, pass)
		}
	}
	return all[max(0, len(all)-mostPermits):]
}

// ownPass returns the pass for a call's own permit, or "" if it has none.
func (m *mark) ownPass() string {
	p := &m.member.family.passes
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.pass == "" && !m.nested && !m.released.Load() {
		m.pass = rand.Text()
		if p.held == nil {
			p.held = map[string]*mark{}
		}
		p.held[m.pass] = m
	}
	return m.pass
}

// couldBePass reports whether a string looks like a pass. What a caller sends may
// be anything, and not everything can be sent on.
func couldBePass(s string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // of rand.Text
	return len(s) == passLength && strings.Trim(s, alphabet) == ""
}

// enter lets a call in that brought a pass for a permit which is held, if no more
// than limit do. What it returns ends that; nil means that the call needs a permit
// of its own.
func (p *passes) enter(brought []string, limit int) (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pass := range brought {
		m := p.held[pass]
		if m == nil || m.guests == mostNested || p.nested >= limit {
			continue
		}
		m.guests++
		p.nested++
		var once atomic.Bool
		return func() {
			if !once.CompareAndSwap(false, true) {
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			m.guests--
			p.nested--
		}
	}
	return nil
}

// revoke makes the pass of a permit that is released worthless.
func (p *passes) revoke(m *mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.pass != "" {
		delete(p.held, m.pass)
	}
}
