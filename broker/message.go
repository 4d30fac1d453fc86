package broker

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Message is one message of a broker. Settle each one once, with Ack or Nack. Its
// fields must not be changed. Its methods are safe for concurrent use. [NewMessage] makes
// messages. The methods of any other Message return an error.
type Message struct {
	// ID names the message in logs. Its form depends on the broker.
	ID string
	// Key groups messages that must stay in order. Empty if the broker knows no keys or
	// the message has none.
	Key string
	// Body is the content.
	Body []byte
	// Attributes are the headers. The values of headers that are not text are left out.
	Attributes map[string]string
	// Attempt counts the deliveries of this message, from 1. It is 0 if the broker does
	// not count.
	Attempt int

	settlement *settlement // shared by copies
}

// NewMessage returns a message with the exported fields of m, which s settles. Adapters
// for brokers use it, and tests.
func NewMessage(m Message, s Settler) *Message {
	m.settlement = &settlement{settler: s, busy: make(chan struct{}, 1)}
	return &m
}

// Ack says that the message was consumed. It blocks until the broker has answered or ctx
// ends. After an error the message is not settled, and Ack or Nack may be called again,
// unless the error wraps [ErrSettled]. Of several calls at the same time the first that
// succeeds wins, and the others return ErrSettled.
func (m *Message) Ack(ctx context.Context) error {
	return m.settle(ctx, verdict{kind: Acked})
}

// Nack gives the message back or sets it aside, as d says. In all else it is like Ack.
//
//	err := m.Nack(ctx, broker.Requeue())
//	err := m.Nack(ctx, broker.DeadLetter("the amount is negative"))
func (m *Message) Nack(ctx context.Context, d Disposition) error {
	return m.settle(ctx, verdict(d))
}

// Extend asks the broker for more time before it delivers the message to others. A source
// with SourceConfig.ExtendEvery does so by itself. Extend returns ErrSettled after the
// settlement. It waits for a settlement that is under way.
func (m *Message) Extend(ctx context.Context) error {
	if m.settlement == nil {
		return errNoSettler
	}
	return m.settlement.extend(ctx)
}

// isSettled reports whether the message is settled, or belongs to others.
func (m *Message) isSettled() bool { return m.settlement != nil && m.settlement.over.Load() }

func (m *Message) settle(ctx context.Context, v verdict) error {
	if m.settlement == nil {
		return errNoSettler
	}
	return m.settlement.settle(ctx, v)
}

var errNoSettler = errors.New("broker: the message cannot be settled: got one that NewMessage did not make")

// A Disposition is the way of settling a message without having consumed it. The zero value
// is [Requeue].
type Disposition struct {
	kind   Settlement
	reason string // of a dead letter
}

// Requeue gives a message back to its queue, to be delivered again.
func Requeue() Disposition { return Disposition{} }

// maxReason bounds the reason of a dead letter, because brokers bound their headers.
const maxReason = 1000

// DeadLetter sets a message aside for a person to look at. The reason becomes a header of
// the dead letter. It is cut to 1,000 bytes, and control characters become spaces.
func DeadLetter(reason string) Disposition {
	reason = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "\uFFFD"))
	if len(reason) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	return Disposition{kind: DeadLettered, reason: reason}
}
