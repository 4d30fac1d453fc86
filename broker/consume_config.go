package broker

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/check"
)

// A Handler consumes one message. If it returns nil, the message is acknowledged. Otherwise
// ConsumeConfig.FailureOf decides. It runs in a goroutine of its own. It should end when
// ctx ends. It may settle the message itself.
type Handler func(ctx context.Context, m *Message) error

// A ConsumeConfig configures [Consume]. The zero value is ready to use.
type ConsumeConfig struct {
	// Gate bounds the handlers. It may be shared with a server, but not with the clients
	// that the handlers call. The default is a gate of its own, with a limit
	// that adapts.
	Gate *admit.Gate
	// Call returns class, tenant and cost of a message for the gate. The default is the
	// zero Call for each message.
	Call func(*Message) admit.Call
	// Ordered makes messages with the same Key run one after the other, each only when
	// the one before is settled. Others run beside them. A message that failed is then
	// tried again in its place. Messages without a Key have no order.
	Ordered bool
	// MaxAttempts is the number of attempts after which a message that failed becomes a
	// dead letter. The broker's count is used where it counts, or else a count of this
	// process. The default is 5.
	MaxAttempts int
	// RetryDelay is the time for which a message is held after its first failed attempt,
	// before it is given back. It doubles with each attempt, up to 30 s, and has jitter.
	// A message that waits counts as in use. The default is 100 ms.
	RetryDelay time.Duration
	// FailureOf decides about an error of the handler. The default is the function
	// [FailureOf]. It must be safe for concurrent use.
	FailureOf func(error) Failure
	// MaxPause bounds the pauses after refusals that ask for no delay. They begin at
	// 100 ms. The default is 30 s.
	MaxPause time.Duration
	// Grace is the time that running handlers have after the end of Consume's context.
	// Then their contexts end, and a second later Consume returns. The default is 10 s.
	Grace time.Duration
	// OnError is called with each failed attempt, and with each failed settlement. It must
	// be safe for concurrent use, and quick. A panic in it is ignored.
	OnError func(*Message, error)
	// Meter counts for metrics. It is usually the meter of the source. The default is
	// none.
	Meter *Meter
	// Logger gets a line when consumption pauses and when it goes on, and for each panic.
	// The default is [slog.Default].
	Logger *slog.Logger
}

const (
	defaultAttempts   = 5
	defaultRetryDelay = 100 * time.Millisecond
	maxRetryDelay     = 30 * time.Second
	defaultGrace      = 10 * time.Second
	// afterGrace is the time that handlers have after the end of their contexts.
	afterGrace = time.Second
	// settleTimeout bounds one try of a settlement.
	settleTimeout = 30 * time.Second
	// deadTries is the number of tries to set a message aside before it is given back.
	deadTries = 3
)

func (c ConsumeConfig) validate() error {
	var bad check.Errors
	bad.That(c.Gate == nil || c.Gate.Limit() > 0, "Gate: got a zero Gate, want one from admit.New")
	check.NotNegative(&bad, "MaxAttempts", c.MaxAttempts, defaultAttempts)
	check.NotNegative(&bad, "RetryDelay", c.RetryDelay, defaultRetryDelay)
	check.NotNegative(&bad, "MaxPause", c.MaxPause, defaultPause)
	check.NotNegative(&bad, "Grace", c.Grace, defaultGrace)
	return bad.Err(ErrConfig)
}

func (c ConsumeConfig) withDefaults() (ConsumeConfig, error) {
	if c.Gate == nil {
		gate, err := admit.New(admit.WithName("consume"))
		if err != nil {
			return c, err
		}
		c.Gate = gate
	}
	if c.FailureOf == nil {
		c.FailureOf = FailureOf
	}
	if c.Meter == nil {
		c.Meter = &Meter{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.MaxAttempts = cmp.Or(c.MaxAttempts, defaultAttempts)
	c.RetryDelay = cmp.Or(c.RetryDelay, defaultRetryDelay)
	c.MaxPause = cmp.Or(c.MaxPause, defaultPause)
	c.Grace = cmp.Or(c.Grace, defaultGrace)
	return c, nil
}
