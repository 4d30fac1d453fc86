package interceptors

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc"
)

// tableSize is how many targets, or methods of targets, a table tells apart. A
// program calls some dozens; one that forwards whatever methods it is asked for
// must not grow for ever. Each may be spelled in some ways.
const (
	tableSize = 1024
	spellings = 4 * tableSize
)

// everythingElse stands for the targets and methods beyond tableSize, and for those
// that cannot be labels because they are not valid UTF-8.
const everythingElse = "*"

// A place is a method of a target, of calls of one class if there is one.
type place struct{ target, method, class string }

// isText reports whether the names can be labels. The canonical form of a target can
// be none although the target is.
func (p place) isText() bool { return utf8.ValidString(p.target) && utf8.ValidString(p.method) }

// A table holds a value for each place. Finding one takes no lock and allocates
// nothing.
type table[V any] struct {
	make func(place) V
	rest V // for everythingElse

	// found is replaced, never changed. Its targets are as the program spelled
	// them: making them canonical allocates. All of it is text.
	found atomic.Pointer[map[place]V]

	mu        sync.Mutex // guards what follows
	canonical map[place]V
	ordered   []V // those of canonical, as they came
}

func newTable[V any](mk func(place) V) *table[V] {
	t := &table[V]{make: mk, rest: mk(place{everythingElse, everythingElse, everythingElse}), canonical: map[place]V{}}
	t.found.Store(&map[place]V{})
	return t
}

// at returns the value for a method of a connection's target. Connections whose
// targets have the same canonical form share it. Without a connection, as in
// tests of interceptors, the target is empty.
func (t *table[V]) at(cc *grpc.ClientConn, method string) V { return t.atClass(cc, method, "") }

// atClass is at for the calls of one class.
func (t *table[V]) atClass(cc *grpc.ClientConn, method, class string) V {
	p := place{method: method, class: class}
	if cc != nil {
		p.target = cc.Target()
	}
	found := *t.found.Load()
	if v, ok := found[p]; ok {
		return v
	}
	if len(found) >= spellings || !p.isText() {
		return t.rest
	}
	return t.add(cc, p)
}

func (t *table[V]) add(cc *grpc.ClientConn, p place) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := *t.found.Load()
	if v, ok := found[p]; ok {
		return v
	}
	if len(found) >= spellings {
		return t.rest
	}
	c := p
	if cc != nil {
		c.target = cc.CanonicalTarget()
	}
	v := t.canonicalLocked(c)
	found = maps.Clone(found)
	found[p] = v
	t.found.Store(&found)
	return v
}

// canonicalLocked returns the value for a place whose target is in its canonical form.
func (t *table[V]) canonicalLocked(p place) V {
	v, ok := t.canonical[p]
	if !ok {
		if len(t.canonical) >= tableSize || !p.isText() {
			return t.rest
		}
		v = t.make(p)
		t.canonical[p] = v
		t.ordered = append(t.ordered, v)
	}
	return v
}

// all returns the values in the order in which they were first asked for. The one
// for the rest is last.
func (t *table[V]) all() []V {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(slices.Clone(t.ordered), t.rest)
}
