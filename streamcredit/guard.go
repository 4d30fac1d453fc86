package streamcredit

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// stuckGrace is how long a write of a server's session that has failed may make no progress.
const stuckGrace = 100 * time.Millisecond

// guard ends the stream of a server's session that has failed with err, if a write is stuck in
// the transport. The handler waits for that write, or will when it closes, and so cannot return
// the status itself. guard looks until the handler has returned.
func (s *session[O, I]) guard(err error) {
	if s.end == nil || s.ctx.Err() != nil {
		return
	}
	last := s.progress()
	s.mu.Lock() // so that s.stuck is set before it is used
	defer s.mu.Unlock()
	s.stuck = time.AfterFunc(last.patience(), func() {
		now := s.progress()
		switch {
		case s.ctx.Err() != nil:
			return
		case now.writing && now == last:
			s.broken.Store(true)           // the handler may still receive the elements that have arrived
			_ = s.end(status.Convert(err)) // if it fails, the stream has ended
			return
		}
		last = now
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stuck.Reset(now.patience())
	})
}

// unguard stops guard: the stream has ended.
func (s *session[O, I]) unguard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck != nil {
		s.stuck.Stop()
	}
}

// progress is how far the writes of a session have come.
type progress struct {
	writing        bool   // one is under way
	wrote, carried uint64 // messages
}

func (s *session[O, I]) progress() progress {
	writing, carried := s.wire.carried()
	return progress{writing || s.w.held.Load(), s.wrote.Load(), carried}
}

// patience is how long guard waits before it looks again.
func (p progress) patience() time.Duration {
	if p.writing {
		return stuckGrace
	}
	return closeGrace
}

// endOf returns how to end a server's stream before its handler returns, or nil where there is
// no way. gRPC ends a stream so itself when SendMsg or RecvMsg fails, from the goroutine of
// that call, and drops the status of the handler. WriteStatus is therefore safe beside other
// calls, and the first status wins. It is no part of an interface of gRPC, but of the stream that
// gRPC hands out. Under grpc.Server.ServeHTTP it waits for the stuck write, and frees nothing.
func endOf(ctx context.Context) func(*status.Status) error {
	if s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error }); ok {
		return s.WriteStatus
	}
	return nil
}
