// Package broker carries demand from a service to a message broker. A [Source] fetches only as
// many messages as were requested, and a message is acknowledged only when it was consumed. The
// backlog stays at the broker.
//
// [Consume] runs a handler for each message under an admit.Gate. It requests as many messages as
// the gate has room for, and pauses while something refuses work:
//
//	err := broker.Consume(ctx, source, func(ctx context.Context, m *broker.Message) error {
//		return pay(ctx, m.Body)
//	}, broker.ConsumeConfig{})
//
// [Serve] joins a source to a stream of package streamcredit. The demand of the client becomes
// demand at the broker, and a message is acknowledged when the client has consumed it.
//
// The adapters for brokers are modules of their own below this package. An adapter implements
// [Fetcher] and [Settler], and [NewSource] does the rest. It counts demand, waits after errors,
// extends messages, and gives back the rest at the end.
//
// Delivery is at least once, so a handler may get the same message twice. You do not need this
// package if your client library fetches one message at a time and one handler is enough.
package broker
