// Package broker carries demand from a gRPC service to a message broker. A Source fetches
// only as many messages as were requested, and a message is acknowledged only when it was
// consumed.
package broker
