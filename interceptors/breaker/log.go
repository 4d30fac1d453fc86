package breaker

import (
	"context"
	"log/slog"
)

// WithLogger logs each change of the state of a circuit, with the attributes breaker, target,
// method, from and to. A nil logger logs nothing.
func WithLogger(l *slog.Logger) Option {
	return option(func(b *Breaker) {
		if l == nil {
			return
		}
		b.hooks = append(b.hooks, Hooks{StateChanged: func(target, method string, from, to State) {
			level, text := slog.LevelInfo, "weir: a circuit has changed"
			switch to {
			case Open:
				level, text = slog.LevelWarn, "weir: a circuit is open"
			case Closed:
				text = "weir: a circuit is closed again"
			case HalfOpen:
			}
			l.LogAttrs(context.Background(), level, text, slog.String("breaker", b.cfg.Name), slog.String("target", target),
				slog.String("method", method), slog.String("from", from.String()), slog.String("to", to.String()))
		}})
	})
}
