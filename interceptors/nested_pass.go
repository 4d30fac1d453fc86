package interceptors

import (
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// passLength is the length of a pass. A pass is a rand.Text of more than 128 bits.
const passLength = 26

// mostNested bounds the calls that run under one permit at once.
const mostNested = 8

// passes are secrets, each for a permit that a call of this process holds. A pass travels
// with the calls that are made for that call. A call that comes back with it runs under the
// permit. Otherwise a cycle could deadlock, with all permits held by calls that wait for
// such calls.
//
// A pass lets its holder run a bounded number of calls while that one permit is held. It is
// made when it is first needed, and is worthless once the permit is released.
type passes struct {
	mu     sync.Mutex // guards the fields below
	held   map[string]*mark
	nested int // calls that run under the permit of another call
}

// passes returns the passes for the calls that are made for this one. They are the passes
// that it brought, and one for each of its own permits. If there are more than mostPermits,
// only the last ones travel.
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

// couldBePass reports whether a string has the form of a pass. A caller can send anything,
// and not everything can be sent on.
func couldBePass(s string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // of rand.Text
	return len(s) == passLength && strings.Trim(s, alphabet) == ""
}

// enter admits a call that brought a pass for a permit that is held, if fewer than limit
// such calls run. leave ends that. It is nil if the call needs a permit of its own.
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

// revoke makes the pass of a released permit worthless.
func (p *passes) revoke(m *mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.pass != "" {
		delete(p.held, m.pass)
	}
}
