package pressure

import (
	"context"
	"log/slog"
)

// WithLogger logs each change of the level, and signals that begin to fail or work again. The
// attributes are monitor, level, was, signal and value. A nil logger logs nothing.
func WithLogger(l *slog.Logger) Option {
	return option(func(c *config) {
		if l == nil {
			return
		}
		WithHooks(Hooks{
			Changed: func(ch Change) {
				level, text := slog.LevelWarn, "weir: the pressure has risen"
				if ch.To < ch.From {
					level, text = slog.LevelInfo, "weir: the pressure has fallen"
				}
				l.LogAttrs(context.Background(), level, text, slog.String("monitor", c.name), slog.String("level", ch.To.String()),
					slog.String("was", ch.From.String()), slog.String("signal", ch.Signal), slog.Float64("value", ch.Value))
			},
			Failed: func(signal string, err error) {
				if err == nil {
					l.Info("weir: a signal of pressure works again", slog.String("monitor", c.name), slog.String("signal", signal))
					return
				}
				l.Warn("weir: a signal of pressure fails",
					slog.String("monitor", c.name), slog.String("signal", signal), slog.Any("error", err))
			},
		}).apply(c)
	})
}
