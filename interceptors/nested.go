package interceptors

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/callctx"
	"github.com/weir-go/weir/interceptors/internal/latency"
)

// A kind is one of the four kinds of interceptor. A chain has interceptors of one kind only.
type kind uint8

const (
	unaryServer kind = iota
	streamServer
	unaryClient
	streamClient

	kinds
)

func (k kind) client() bool { return k >= unaryClient }

// A family is shared by the interceptors of one gate. They use it to recognise a call that
// another one has admitted already. That call passes, because it would wait for itself
// otherwise.
//
// A mark in the context identifies the call. Streams are always marked. To mark a unary call
// costs an allocation, so it is done only if it can matter. It is always done once a gate
// has a second interceptor of a kind, or interceptors of both sides. One value can also be
// in a chain twice. So calls are marked until one has gone through the whole chain
// unrecognised. After that, one call in sampleEvery is marked, because the value may be
// twice in the chain of some calls only. Once a call is recognised, all are marked.
type family struct {
	members [kinds]atomic.Int32
	always  atomic.Bool
	// marked counts the marked calls that run. While it is 0, no interceptor looks for a
	// mark.
	marked [kinds]atomic.Int64
	// passes are for calls that come back through another process.
	passes passes
}

const sampleEvery = 1024

// families holds one family for each gate in use, by weak.Pointer[admit.Gate]. It does not
// keep a gate alive.
var families sync.Map // of *family

func familyOf(g *admit.Gate) *family {
	key := weak.Make(g)
	v, loaded := families.LoadOrStore(key, new(family))
	if !loaded {
		runtime.AddCleanup(g, func(key weak.Pointer[admit.Gate]) { families.Delete(key) }, key)
	}
	return v.(*family) //nolint:forcetypeassert // the map holds nothing else
}

func (f *family) has(a, b kind) bool { return f.members[a].Load()+f.members[b].Load() > 0 }

// A member is one interceptor of a gate.
type member struct {
	gate   *admit.Gate
	kind   kind
	key    any // a markKey; boxed once
	family *family
	paces  *latency.Methods // of the methods of unary calls
	// alone is set when a marked call went through the whole chain and met no other member.
	alone atomic.Bool
}

func join(g *admit.Gate, k kind) *member {
	f := familyOf(g)
	several := f.members[k].Add(1) > 1
	if several || f.has(unaryServer, streamServer) && f.has(unaryClient, streamClient) {
		f.always.Store(true)
	}
	return &member{gate: g, kind: k, key: markKey{g, k}, family: f, paces: latency.NewMethods()}
}

// inside reports whether the call already holds a permit of the gate.
func (m *member) inside(ctx context.Context) bool {
	f := m.family
	if !f.always.Load() && f.marked[m.kind].Load() == 0 {
		return false
	}
	if ctx.Value(m.key) == nil {
		return false
	}
	if !f.always.Load() {
		f.always.Store(true)
	}
	return true
}

// mark returns a marked context.
func (m *member) mark(ctx context.Context) *mark {
	m.family.marked[m.kind].Add(1)
	return &mark{Context: ctx, member: m}
}

// sometimes returns a marked context for a unary call if it needs one, and nil if not.
func (m *member) sometimes(ctx context.Context) *mark {
	if m.alone.Load() && !m.family.always.Load() && rand.Uint32()%sampleEvery != 0 {
		return nil
	}
	return m.mark(ctx)
}

// A mark is the context of a call that holds a permit. Once the permit is released, it
// marks nothing, so a goroutine that the handler left behind must take its own permit.
type mark struct {
	context.Context
	member   *member
	released atomic.Bool

	// The fields below are for calls that this one makes, see WithPropagation.
	hop     bool  // there is something to pass on
	outer   *mark // of a gate further out in the chain, or nil
	class   admit.Class
	brought []string // passes that came with the call
	nested  bool     // it runs under the permit of one of them
	// failed lists the methods of calls that it made and that ended with UNAVAILABLE or
	// RESOURCE_EXHAUSTED. A successful call removes its method. The list is replaced, never
	// changed.
	failed atomic.Pointer[[]string]

	pass   string // stands for the permit; guarded by the lock of passes
	guests int    // calls that run under the permit; guarded by the lock of passes
}

// CallClass implements callctx.Hop.
func (m *mark) CallClass() admit.Class { return m.class }

// A markKey finds the mark of a gate, for an interceptor of a kind. It finds marks of the
// same kind. A client's key also finds the mark of the call that its call is made for.
type markKey struct {
	gate *admit.Gate
	kind kind
}

// Value implements context.Context.
func (m *mark) Value(key any) any {
	switch k := key.(type) {
	case markKey:
		if m.answers(k) {
			return m
		}
	case callctx.HopKey:
		if m.hop {
			return m
		}
	}
	return m.Context.Value(key)
}

func (m *mark) answers(k markKey) bool {
	seen := m.member.kind == k.kind || k.kind.client() && !m.member.kind.client()
	return seen && m.member.gate == k.gate && !m.released.Load()
}

// unwind ends a mark with its call. well is true if the call succeeded. A nil mark is none.
func (m *mark) unwind(well bool) {
	if m == nil || !m.released.CompareAndSwap(false, true) {
		return
	}
	m.member.family.marked[m.member.kind].Add(-1)
	if m.hop {
		m.member.family.passes.revoke(m)
	}
	if well {
		m.member.alone.Store(true)
	}
}
