// Package weirtest has gates and servers that refuse calls on demand, for tests of
// programs that use weir. The refusals have the statuses, details and trailers of real
// ones.
//
//   - [NewGate] is for code that calls a gate.
//   - [NewServer] is for clients and their retries.
//   - [Error] is for code that gets its errors from a mock.
//
// Everything works inside a testing/synctest bubble, where the delays of refusals pass at
// once. Nothing here protects a server.
package weirtest
