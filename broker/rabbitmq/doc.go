// Package rabbitmq is a [broker.Source] for RabbitMQ, by way of amqp091-go. The broker sends
// a message only while there is demand for it, and a message leaves its queue only when it
// was acknowledged or stored as a dead letter.
//
// Use it for work that may be slow, such as a call for each message. Do not use it for
// streams, which are read by position. [Open] connects to a queue:
//
//	source, err := rabbitmq.Open(ctx, rabbitmq.Config{
//		URLs:          []string{"amqp://guest:guest@localhost/"},
//		Queue:         "jobs",
//		DeadLetterKey: "jobs.dead",
//	})
//
// # How demand reaches the broker
//
// RabbitMQ sends messages by itself. The prefetch count of a consumer bounds the number of
// messages that are unacknowledged, and each acknowledgement lets the broker send another
// one. The count is fixed when the consumer starts. So the source starts a consumer with
// the demand as its prefetch count.
//
// A program that requests the next message and then acknowledges the last one keeps the
// demand level, and the consumer runs on. If an acknowledgement would let the broker send
// more than is requested, the source cancels the consumer first. If the demand has grown
// for some milliseconds, the source starts a larger consumer. The messages of the last one
// stay unacknowledged and are part of the demand.
//
// # Lost connections
//
// The source connects again by itself, after 100 ms, then later up to 10 s. RabbitMQ delivers
// the messages of the lost connection again. Settling one of the old messages returns
// [ErrLost].
package rabbitmq
