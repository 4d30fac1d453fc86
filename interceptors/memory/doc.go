// Package memory bounds the memory that a gRPC server spends on messages.
//
// A limit on calls does not bound memory. One call may hold a message of a few bytes or of
// megabytes, and a response stays in memory after its handler has returned, until the client
// has read it. Use this package in a server that runs in a container, or with clients that send or
// ask for large messages. For the elements of streams with credit, see streamcredit.Budget. For
// the memory of the process as a whole, see the memory signal of package pressure.
//
//	sizes, err := memory.SizesFor(256 << 20)
//	...
//	bytes, err := memory.NewBytes(sizes.Bytes)
//	...
//	gate, err := admit.New(admit.WithPressure(bytes))
//	...
//	options, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Memory: sizes.Memory, Bytes: bytes})
//
// # Concepts
//
// [Sizes] are the bounds of one message, one stream and one connection. [SizesFor] derives them
// from a memory budget.
//
// [Bytes] counts the messages that the server holds, and makes gates refuse calls while they are
// too many.
//
// Both have options for a server without interceptors.Server. They are [Sizes.ServerOptions] and
// [Bytes.ServerOptions].
package memory
