package broker

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the errors of wrong configurations.
var ErrConfig = errors.New("broker: invalid configuration")

// A SourceConfig configures [NewSource]. Adapters for brokers pass it on from their own
// configurations, and may set ExtendEvery.
type SourceConfig struct {
	// Name names the source in logs and metrics. The default is "default". Choose it in
	// the program, never from a message.
	Name string
	// ExtendEvery is the time between two calls of Message.Extend for each message that
	// is held. It counts from the receipt of the message, not from the start of its
	// handler. Half of the time after which the broker delivers the message again is a
	// good value. Zero means that messages are not extended.
	ExtendEvery time.Duration
	// MaxHold is the time after which a message is not extended any more, so that a
	// handler that hangs does not keep it for ever. The broker then delivers it again.
	// The default is one hour.
	MaxHold time.Duration
	// OnError is called with each error of Fetch and Extend, and with each mistake of the
	// Fetcher. It must be safe for concurrent use, and quick. The source goes on. A panic
	// in it is ignored.
	OnError func(error)
	// Meter counts for metrics. The default is none.
	Meter *Meter
	// Logger gets a line when the connection to the broker is lost, and when it is back.
	// The default is [slog.Default].
	Logger *slog.Logger
}

// Bounds of a SourceConfig and times of a source.
const (
	minExtend      = 10 * time.Millisecond
	defaultMaxHold = time.Hour

	minDelay = 100 * time.Millisecond // after an error
	maxDelay = 10 * time.Second
	// quickFetch is the time within which a Fetch without messages and without an error
	// did not wait. Repeating it at once would poll without end.
	quickFetch = 10 * time.Millisecond
	maxQuick   = time.Second
	// farewell bounds each of the last calls of a source: giving back messages after the
	// end of Close's context, the wait for a Fetch that was canceled, and Fetcher.Close.
	farewell = 5 * time.Second
	// maxExtend bounds an Extend, which a settlement waits for.
	maxExtend = 10 * time.Second
)

func (c SourceConfig) withDefaults() SourceConfig {
	c.Name = cmp.Or(c.Name, "default")
	c.MaxHold = cmp.Or(c.MaxHold, defaultMaxHold)
	if c.Meter == nil {
		c.Meter = &Meter{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate returns an error that wraps [ErrConfig] and names every mistake in c, or nil. [NewSource]
// calls it. An adapter calls it as well, before it connects.
func (c SourceConfig) Validate() error {
	var bad check.Errors
	bad.That(c.ExtendEvery == 0 || c.ExtendEvery >= minExtend,
		"ExtendEvery: got %v, want at least %v, or 0 for none", c.ExtendEvery, minExtend)
	check.NotNegative(&bad, "MaxHold", c.MaxHold, defaultMaxHold)
	return bad.Err(ErrConfig)
}
