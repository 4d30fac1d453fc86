// Package stall ends a server's stream from outside of its handler, when one of its writes is
// stuck in the transport. SendMsg has no deadline, so a handler cannot do it itself.
package stall

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// A Sight is one look at the writes of a stream.
type Sight struct {
	// Writing reports whether a write is under way, Done how many have ended.
	Writing bool
	Done    uint64
	// Patience is for how long a write may be under way while none ends.
	Patience time.Duration
	// Again is when to look again at the latest.
	Again time.Duration
	// Idle allows the watch to rest until the next Start when nothing is written.
	Idle bool
}

// stands reports whether no write has begun or ended between two sights.
func (s *Sight) stands(before Sight) bool {
	return s.Writing == before.Writing && s.Done == before.Done
}

// A Stream is looked after by a Watch.
type Stream interface {
	// Look says how far the writes have come. It must be quick and safe for concurrent use.
	Look() Sight
	// Stalled is called once, from a goroutine of the watch, when a write has taken longer than
	// its patience. Nothing is looked at after that.
	Stalled()
}

// The states of a Watch.
const (
	resting uint32 = iota
	watching
	over
)

// A Watch looks at the writes of one stream now and then, from a timer. It has no goroutine of
// its own. The zero Watch rests. It is safe for concurrent use and must not be copied.
type Watch struct {
	state atomic.Uint32
	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	last  Sight
	since time.Time // when last was first seen
}

// Start has the watch look after a stream, always the same one. Call it when a write has begun.
// If the watch does not rest, it costs one atomic read.
func (w *Watch) Start(s Stream) {
	if w.state.Load() == resting && w.state.CompareAndSwap(resting, watching) {
		w.begin(s)
	}
}

func (w *Watch) begin(s Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Load() != watching { // stopped meanwhile
		return
	}
	w.last, w.since = s.Look(), time.Now()
	next := min(w.last.Again, w.last.Patience)
	if w.timer == nil {
		w.timer = time.AfterFunc(next, func() { w.look(s) })
	} else {
		w.timer.Reset(next)
	}
}

// look is the timer's function.
func (w *Watch) look(s Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Load() != watching {
		return
	}
	sight := s.Look()
	stands := sight.stands(w.last)
	if !stands {
		w.last, w.since = sight, time.Now()
	}
	next := sight.Again
	switch {
	case sight.Writing:
		left := sight.Patience - time.Since(w.since)
		if left <= 0 {
			w.state.Store(over)
			s.Stalled() // under the lock, so that Stop waits for it
			return
		}
		next = min(next, left)
	case stands && sight.Idle && w.rest(s):
		return
	}
	w.timer.Reset(next)
}

// rest lets the watch rest, unless a write has begun that has seen it at work.
func (w *Watch) rest(s Stream) bool {
	w.state.Store(resting)
	return !s.Look().Writing || !w.state.CompareAndSwap(resting, watching)
}

// Stop ends the watch. Stalled was called before Stop returns, or never will be.
func (w *Watch) Stop() {
	if w.state.Swap(over) == resting {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// EndOf returns a function that ends the stream of a server's call with a status while the
// handler runs. That ends the stream's context, and with it SendMsg and RecvMsg. ctx is the
// context of the call. It returns nil where there is no way to do it: outside of a call of
// grpc.Server, and under grpc.Server.ServeHTTP, where the status would wait for the stuck
// write.
//
// gRPC ends a stream so itself when SendMsg or RecvMsg fails, from the goroutine of that call,
// and drops the status of the handler. WriteStatus is therefore safe beside other calls, and the
// first status wins. It is no part of an interface of gRPC, but of the stream that gRPC hands
// out.
func EndOf(ctx context.Context) func(*status.Status) error {
	if ctx.Value(http.ServerContextKey) != nil {
		return nil
	}
	if s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error }); ok {
		return s.WriteStatus
	}
	return nil
}
