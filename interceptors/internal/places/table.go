package places

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc"
)

// Max is how many places a table tells apart. A program calls some dozens. Max bounds the
// memory of a program that forwards any method that it is asked for. The target of a place
// may have several spellings.
const (
	Max       = 1024
	spellings = 4 * Max
)

// Rest is the name of the targets and methods beyond Max, and of all names that cannot be
// labels because they are not valid UTF-8.
const Rest = "*"

// A Place is a method of a target, for calls of one class if there is one.
type Place struct{ Target, Method, Class string }

// isText reports whether the names can be labels. A target may be valid although its
// canonical form is not.
func (p Place) isText() bool { return utf8.ValidString(p.Target) && utf8.ValidString(p.Method) }

// A Table holds a value for each place. To find one takes no lock and no allocation.
type Table[V any] struct {
	make func(Place) V
	rest V // for Rest

	// found is replaced, never changed. Its targets are as the program spelled them,
	// because making them canonical allocates. All names in it are valid UTF-8.
	found atomic.Pointer[map[Place]V]

	mu        sync.Mutex // guards the fields below
	canonical map[Place]V
	ordered   []V // the values of canonical, in the order of their first use
}

// New returns a table. It calls mk for the value of a place.
func New[V any](mk func(Place) V) *Table[V] {
	t := &Table[V]{make: mk, rest: mk(Place{Rest, Rest, Rest}), canonical: map[Place]V{}}
	t.found.Store(&map[Place]V{})
	return t
}

// At returns the value of a method of a connection's target. Connections share it if their
// targets have the same canonical form. Without a connection, as in some tests, the target
// is empty.
func (t *Table[V]) At(cc *grpc.ClientConn, method string) V { return t.AtClass(cc, method, "") }

// AtClass is At for the calls of one class.
func (t *Table[V]) AtClass(cc *grpc.ClientConn, method, class string) V {
	p := Place{Method: method, Class: class}
	if cc != nil {
		p.Target = cc.Target()
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

func (t *Table[V]) add(cc *grpc.ClientConn, p Place) V {
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
		c.Target = cc.CanonicalTarget()
	}
	v := t.canonicalLocked(c)
	found = maps.Clone(found)
	found[p] = v
	t.found.Store(&found)
	return v
}

// canonicalLocked returns the value for a place with a target in its canonical form.
func (t *Table[V]) canonicalLocked(p Place) V {
	v, ok := t.canonical[p]
	if !ok {
		if len(t.canonical) >= Max || !p.isText() {
			return t.rest
		}
		v = t.make(p)
		t.canonical[p] = v
		t.ordered = append(t.ordered, v)
	}
	return v
}

// All returns the values in the order of their first use. The one of the rest is last.
func (t *Table[V]) All() []V {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(slices.Clone(t.ordered), t.rest)
}
