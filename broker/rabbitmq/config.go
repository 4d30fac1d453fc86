package rabbitmq

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the error of [Open] for a Config that cannot work.
var ErrConfig = errors.New("rabbitmq: invalid configuration")

// A Config describes a consumer of one queue. URLs and Queue must be set. The zero value of
// each other field means its documented default.
type Config struct {
	// URLs are the addresses of the nodes of a cluster, such as amqp://user:password@host/vhost.
	// The source connects to the first that answers, and tries the next one after a loss.
	URLs []string
	// Queue is the queue to consume. It must exist. A stream is an error.
	Queue string
	// DeadLetterExchange and DeadLetterKey say where messages that are set aside are
	// published. The default of the key is the routing key of the message. For a queue
	// named jobs.dead, leave the exchange empty and set the key to jobs.dead. If both are
	// empty, Nack with a dead letter returns an error.
	DeadLetterExchange string
	DeadLetterKey      string

	// Name names the consumer in the broker's lists. The default is "weir".
	Name string
	// Arguments are arguments of the consumer, such as x-priority.
	Arguments amqp.Table
	// Key returns the Key of a message, within which the order is kept. It must not change
	// the delivery. By default messages have no key.
	Key func(amqp.Delivery) string
	// Client configures connections: TLS, authentication, heartbeat, properties. Recovery
	// must be nil, because the source connects again by itself. A broker that does not
	// answer is noticed after one and a half to two heartbeats. The default of the
	// heartbeat is 10 s.
	Client amqp.Config

	// Source configures the part of the source that all brokers share. The default of its
	// Name is Queue. ExtendEvery must be zero, because RabbitMQ gives no more time.
	Source broker.SourceConfig
}

// maxName leaves room for a number behind the name. Consumer tags have at most 255 bytes.
const maxName = 200

// validate returns c with defaults, or every mistake in it.
func (c Config) validate() (Config, error) {
	var bad check.Errors
	bad.That(len(c.URLs) > 0, "URLs: got none, want at least one")
	for i, url := range c.URLs {
		_, err := amqp.ParseURI(url)
		bad.From(fmt.Sprintf("URLs[%d]", i), err, nil)
	}
	bad.That(c.Queue != "", "Queue: got none, want the name of a queue")
	bad.That(c.DeadLetterExchange != "" || c.DeadLetterKey == "" || c.DeadLetterKey != c.Queue,
		"DeadLetterKey: got %q, which is Queue, want another queue", c.DeadLetterKey)
	bad.That(len(c.Name) <= maxName, "Name: got %d bytes, want at most %d", len(c.Name), maxName)
	bad.That(c.Source.ExtendEvery == 0, "Source: ExtendEvery: got %v, want 0", c.Source.ExtendEvery)
	bad.That(c.Client.Recovery == nil, "Client.Recovery: got one, want nil")
	bad.From("Arguments", c.Arguments.Validate(), nil)
	bad.From("Source", c.Source.Validate(), broker.ErrConfig)
	if err := bad.Err(ErrConfig); err != nil {
		return c, err
	}
	c.URLs = slices.Clone(c.URLs)
	c.Name = cmp.Or(c.Name, "weir")
	c.Source.Name = cmp.Or(c.Source.Name, c.Queue)
	return c, nil
}

// deadLetters reports whether messages can be set aside.
func (c Config) deadLetters() bool { return c.DeadLetterExchange != "" || c.DeadLetterKey != "" }
