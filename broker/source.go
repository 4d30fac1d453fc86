package broker

import (
	"context"
	"errors"
)

// A Source delivers the messages of one queue, topic or subscription, as they are
// requested. A message counts against the demand from the moment at which the broker
// hands it to this process until it is settled. So the broker never counts more
// unsettled messages for a Source than were requested and not settled. All methods are
// safe for concurrent use.
type Source interface {
	// Request adds n to the number of messages that the source may deliver. It does not
	// block. An n below one does nothing.
	Request(n int)

	// Next returns the next requested message. It blocks until one is there, also while
	// the connection to the broker is lost. It returns the error of ctx when ctx ends,
	// io.EOF after Close, and another error, which wraps ErrPermanent, if the source can
	// never deliver again. A message that Next does not return when ctx ends is returned
	// by the next call.
	Next(ctx context.Context) (*Message, error)

	// Close ends the source. It fetches nothing more, gives back messages that Next has
	// not returned, and waits until the others are settled. When ctx ends first, it gives
	// those back as well, which takes some seconds at most, and returns the error of ctx.
	// Messages that are settled later return ErrSettled. Close may be called more than
	// once. Each call waits until the source has ended.
	Close(ctx context.Context) error
}

// A Settler tells the broker the end of one message. An adapter for a broker
// implements it. A Message calls one of Ack, Requeue and DeadLetter, at most once
// successfully, and Extend only before that, one call at a time. The methods block until
// the broker has answered or ctx ends.
//
// An error that wraps ErrSettled says that the message is no longer this consumer's. The
// broker has taken it away, and will deliver it again or has done so. The message then
// counts as settled. After any other error the call may be repeated.
type Settler interface {
	// Ack says that the message was consumed.
	Ack(ctx context.Context) error
	// Requeue gives the message back, to be delivered again.
	Requeue(ctx context.Context) error
	// DeadLetter sets the message aside for a person to look at, with the reason. It must
	// not lose the message: if there is no dead letter queue, it returns an error.
	DeadLetter(ctx context.Context, reason string) error
	// Extend asks the broker for more time before it delivers the message to others. A
	// broker that knows no such time returns nil.
	Extend(ctx context.Context) error
}

// A Fetcher fetches messages from a broker. An adapter implements it, and NewSource makes
// a Source of it. Only one goroutine calls Fetch, and Close is called once, after Fetch has
// returned for the last time.
type Fetcher interface {
	// Fetch waits until the broker has a message, and returns at most n, which is 1 or
	// more. It may also return none after a time of its own, such as the end of a long
	// poll. It returns soon after ctx has ended, with the messages that it has got. It may
	// return messages together with an error. An error is temporary, and Fetch is called
	// again after a delay, unless it wraps ErrPermanent. [NewMessage] makes the messages.
	Fetch(ctx context.Context, n int) ([]*Message, error)
	// Close releases the connection. All messages were settled or given back before.
	Close(ctx context.Context) error
}

var (
	// ErrSettled is the error of a message that was settled or given back before.
	ErrSettled = errors.New("broker: the message is settled already")
	// ErrPermanent is wrapped by errors of a Fetcher that another try cannot mend.
	ErrPermanent = errors.New("broker: the source can deliver no more")
)
