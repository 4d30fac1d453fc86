package streamcredit

import (
	"time"

	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/stall"
)

// stuckGrace is how long a write of a server's session that has failed may make no progress.
const stuckGrace = 100 * time.Millisecond

// stuck is the guard against writes that the transport does not take.
type stuck struct {
	end   func(*status.Status) error // ends a server's stream with a status; nil: only its handler can
	watch stall.Watch
}

// guard ends the stream of a server's session that has failed with err, if a write is stuck in
// the transport. The handler waits for that write, or will when it closes, and so cannot return
// the status itself. guard looks until the handler has returned. It calls before first.
func (w *writer[O]) guard(err error, before func()) {
	if w.stuck.end != nil && w.ctx.Err() == nil {
		w.stuck.watch.Start(&guarded[O]{w, err, before})
	}
}

// unguard stops guard. The stream has ended.
func (w *writer[O]) unguard() { w.stuck.watch.Stop() }

// A guarded is the writer of a session that has failed with err, as its watch sees it.
type guarded[O any] struct {
	*writer[O]

	err    error
	before func()
}

// Look implements stall.Stream.
func (g *guarded[O]) Look() stall.Sight {
	writing, carried := g.wire.carried()
	sight := stall.Sight{
		Writing: writing || g.held.Load(), Done: g.messages.Load() + carried,
		Patience: stuckGrace, Again: closeGrace,
	}
	if sight.Writing {
		sight.Again = stuckGrace
	}
	return sight
}

// Stalled implements stall.Stream.
func (g *guarded[O]) Stalled() {
	if g.ctx.Err() != nil {
		return
	}
	g.before()
	_ = g.stuck.end(statusOf(g.err)) // if it fails, the stream has ended
}
