// Package rawend is an end of the credit protocol that shares no code with weir or gRPC and uses no generated
// messages. It reads and writes HTTP/2 frames and protobuf fields itself, was written from credit.proto
// alone, and plays the scripts of the conformance suite. With a [Fault] it makes one mistake, so that a test
// can check that the rule against this mistake fails.
package rawend
