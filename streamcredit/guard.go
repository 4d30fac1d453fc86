package streamcredit

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// stuckGrace is how long a write of a server's session that has failed may make no progress.
const stuckGrace = 100 * time.Millisecond

// stuck is the guard against writes that the transport does not take.
type stuck struct {
	end func(*status.Status) error // ends a server's stream with a status; nil: only its handler can

	mu    sync.Mutex // guards timer
	timer *time.Timer
}

// guard ends the stream of a server's session that has failed with err, if a write is stuck in
// the transport. The handler waits for that write, or will when it closes, and so cannot return
// the status itself. guard looks until the handler has returned. It calls before first.
func (w *writer[O]) guard(err error, before func()) {
	if w.stuck.end == nil || w.ctx.Err() != nil {
		return
	}
	last := w.progress()
	w.stuck.mu.Lock() // so that timer is set before it is used
	defer w.stuck.mu.Unlock()
	w.stuck.timer = time.AfterFunc(last.patience(), func() {
		now := w.progress()
		switch {
		case w.ctx.Err() != nil:
			return
		case now.writing && now == last:
			before()
			_ = w.stuck.end(status.Convert(err)) // if it fails, the stream has ended
			return
		}
		last = now
		w.stuck.mu.Lock()
		defer w.stuck.mu.Unlock()
		w.stuck.timer.Reset(now.patience())
	})
}

// unguard stops guard. The stream has ended.
func (w *writer[O]) unguard() {
	w.stuck.mu.Lock()
	defer w.stuck.mu.Unlock()
	if w.stuck.timer != nil {
		w.stuck.timer.Stop()
	}
}

// progress is how far the writes of a session have come.
type progress struct {
	writing        bool   // one is under way
	wrote, carried uint64 // messages
}

func (w *writer[O]) progress() progress {
	writing, carried := w.wire.carried()
	return progress{writing || w.held.Load(), w.messages.Load(), carried}
}

// patience is how long guard waits before it looks again.
func (p progress) patience() time.Duration {
	if p.writing {
		return stuckGrace
	}
	return closeGrace
}

// endOf returns how to end a server's stream before its handler returns, or nil where there is
// no way. gRPC ends a stream in this way itself when SendMsg or RecvMsg fails, from the goroutine
// of that call, and drops the status of the handler. WriteStatus is therefore safe beside other
// calls, and the first status wins. It is not part of an interface of gRPC, but a method of the
// stream that gRPC hands out. Under grpc.Server.ServeHTTP it waits for the stuck write, and frees
// nothing.
func endOf(ctx context.Context) func(*status.Status) error {
	if s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error }); ok {
		return s.WriteStatus
	}
	return nil
}
