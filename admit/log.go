package admit

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// WithLogger logs changes of the state of the gate, and a sample of its refusals. The changes
// are a limit that reaches the smallest value of its algorithm or leaves it, Drain, and a stream
// that interceptors.WithStreams ends. Stalls are logged at most once a second, and so are
// refusals for each reason, with the number since the last line. The attributes are gate,
// method, class and reason. Tenants are not logged.
//
// The lines are written in the goroutine of the call. In [Gate.Update] a logger replaces the
// one before, and nil removes it. There is none by default.
func WithLogger(l *slog.Logger) Option {
	return option(func(c *config) { c.log = newGateLog(l) })
}

// A gateLog writes the lines of a gate. It is safe for concurrent use.
type gateLog struct {
	to      *slog.Logger
	lowest  atomic.Int64 // smallest limit of the algorithm
	refused [NumReasons]sampled
	stalled sampled
}

// A sampled lets one line a second pass.
type sampled struct {
	next atomic.Int64  // when the next line may be written, in Unix nanoseconds
	held atomic.Uint64 // events since the last line
}

const logEvery = time.Second

// pass counts an event. It reports whether to write a line, and the number of events that it
// stands for.
func (s *sampled) pass(now time.Time) (n uint64, ok bool) {
	s.held.Add(1)
	next, at := s.next.Load(), now.UnixNano()
	if at < next || !s.next.CompareAndSwap(next, at+int64(logEvery)) {
		return 0, false
	}
	return s.held.Swap(0), true
}

func newGateLog(l *slog.Logger) *gateLog {
	if l == nil {
		return nil
	}
	return &gateLog{to: l}
}

// hooks returns the hooks that write the lines of a gate.
func (l *gateLog) hooks(gate string, classes [MaxClasses]string, dryRun bool) Hooks {
	return Hooks{
		Refused: func(ctx context.Context, c Call, why Reason, wait time.Duration) {
			n, ok := l.refused[why].pass(time.Now())
			if !ok {
				return
			}
			text := "weir: calls are refused"
			if dryRun {
				text = "weir: calls would be refused"
			}
			l.to.LogAttrs(ctx, slog.LevelWarn, text,
				slog.String("gate", gate), slog.String("method", brief(c.Method)), slog.String("class", classes[c.Class]),
				slog.String("reason", why.String()), slog.Duration("waited", wait), slog.Uint64("refused", n))
		},
		LimitChanged: func(from, to int) {
			switch {
			case to == int(l.lowest.Load()) && from > to:
				l.to.Warn("weir: the limit is at its minimum", slog.String("gate", gate), slog.Int("limit", to), slog.Int("was", from))
			case from == int(l.lowest.Load()) && to > from:
				l.to.Info("weir: the limit has left its minimum", slog.String("gate", gate), slog.Int("limit", to))
			}
		},
	}
}

// allHooks returns the hooks of the configuration and its logger.
func (c *config) allHooks() []Hooks {
	if c.log == nil {
		return c.hooks
	}
	c.log.lowest.Store(int64(max(1, c.floor)))
	return append(slices.Clip(c.hooks), c.log.hooks(c.name, c.classes.names(), c.dryRun))
}

// drained logs that the gate drains.
func (l *gateLog) drained(gate string, waiting int) {
	if l != nil {
		l.to.Info("weir: the gate drains", slog.String("gate", gate), slog.Int("refused_waiters", waiting))
	}
}

// streamStalled logs that a stream was ended because its client took no messages.
func (l *gateLog) streamStalled(ctx context.Context, gate, method string, bound time.Duration) {
	if l == nil {
		return
	}
	if n, ok := l.stalled.pass(time.Now()); ok {
		l.to.LogAttrs(ctx, slog.LevelWarn, "weir: a stream was ended because its client takes no messages",
			slog.String("gate", gate), slog.String("method", brief(method)), slog.Duration("bound", bound), slog.Uint64("ended", n))
	}
}
