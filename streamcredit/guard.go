package streamcredit

import (
	"time"

	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/stall"
)

// stuckGrace is how long a write of a server's session that has failed may make no progress.
const stuckGrace = 100 * time.Millisecond

// guard ends the stream of a server's session that has failed with err, if a write is stuck in
// the transport. The handler waits for that write, or will when it closes, and so cannot return
// the status itself. guard looks until the stream has ended.
func (s *session[O, I]) guard(err error) {
	if s.end != nil && s.ctx.Err() == nil {
		s.stuck.Start(&failed[O, I]{s, err})
	}
}

// unguard stops guard: the stream has ended.
func (s *session[O, I]) unguard() { s.stuck.Stop() }

// A failed is a session that has failed with err, for its watch.
type failed[O, I any] struct {
	session *session[O, I]
	err     error
}

// Look implements stall.Stream.
func (f *failed[O, I]) Look() stall.Sight {
	s := f.session
	writing, carried := s.wire.carried()
	sight := stall.Sight{
		Writing: writing || s.w.held.Load(), Done: s.wrote.Load() + carried,
		Patience: stuckGrace, Again: closeGrace,
	}
	if sight.Writing {
		sight.Again = stuckGrace
	}
	return sight
}

// Stalled implements stall.Stream.
func (f *failed[O, I]) Stalled() {
	s := f.session
	if s.ctx.Err() != nil {
		return
	}
	s.broken.Store(true)             // the handler may still receive the elements that have arrived
	_ = s.end(status.Convert(f.err)) // if it fails, the stream has ended
}
