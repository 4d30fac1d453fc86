// Package nats makes a [broker.Source] of a durable pull consumer of NATS JetStream. The
// server delivers only as many messages as the source has asked for, and an
// acknowledgement is complete only when the server has confirmed it.
//
// The client's own Consume and Messages prefetch up to 500 messages. Their time to
// acknowledge runs while they wait. This package sends pull requests for the demand
// instead, and extends a message from its arrival on.
//
// Stream, consumer and the stream for dead letters must exist. [Open] checks the settings
// of the consumer, and names each one that would lose messages or stall. The connection
// belongs to the caller. Close it after the source. Connect with
// nats.MaxReconnects(-1), or a long outage ends the source.
package nats
