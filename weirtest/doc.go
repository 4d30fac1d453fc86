// Package weirtest helps to test programs that use weir. It has gates and servers that
// refuse calls on demand, with the statuses, details and trailers of real refusals, so
// that a test sees what the program makes of them.
//
// [NewGate] is for code that asks a gate, [NewServer] for clients and their retries, and
// [Error] for code that gets its errors from a mock. All of it works inside a
// testing/synctest bubble, where the delays of refusals pass at once.
//
// It is for tests. Nothing here protects a server.
package weirtest
