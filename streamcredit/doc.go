// Package streamcredit adds request(n) flow control to bidirectional gRPC streams. The receiver
// requests a number of elements, and the sender never has more than that number outstanding.
//
// gRPC alone bounds the bytes in transit. It does not bound the backlog behind a slow consumer,
// because HTTP/2 windows grow with the bandwidth of the whole connection, up to 16 MiB for each
// stream that is not read. With credit the receiver sets the bound, in elements. A stream of a
// few messages, or with a consumer that always keeps up, does not need it.
//
// # Three lines
//
// Give the request and the response message of the method one field,
//
//	import "weir/credit/v1/credit.proto";
//	message Event { string body = 1; weir.credit.v1.Control credit = 15; }
//
// and wrap both ends of the stream. This server sends:
//
//	out, query, err := streamcredit.ServeSend(stream)
//	...
//	err = out.Send(ctx, event) // waits until the client has asked for it
//	...
//	return out.Finish(ctx)
//
// This client receives:
//
//	in, err := streamcredit.DialReceive(ctx, client.Watch)
//	...
//	defer in.Close()
//	for event, err := range in.All(ctx) {
//		...
//	}
//
// Every combination exists: Serve and Dial, Send, Receive and both ([Duplex]). A stream of
// bytes needs no message of its own: [ServeFrames] and [DialFrames] use the service
// weir.credit.v1.CreditStream, and put small elements together.
//
// # A method that streams in one direction only
//
// Credit travels against the elements, so the method has to be bidirectional. A
// server-streaming or client-streaming method cannot become bidirectional in place, because its
// generated code would change in every client. Keep it, and add a bidirectional method with the
// same messages. One function can serve both; see the example of the second method. Until the
// clients have moved, protect the old method with interceptors.WithStreams, which ends streams
// whose clients read nothing, and with admit.WithMaxOpen, which bounds the number of streams.
//
// # How much is asked for
//
// By default a receiver adapts its window ([WithAutoWindow]). [WithWindow] fixes the size. The
// window bounds the elements that are requested and not yet consumed, and so bounds the
// receiver's buffer. With [WithManualDemand] the receiver requests only as many elements as
// [Receiver.Request] asks for. [WithByteWindow] bounds bytes, and a [Budget] bounds the memory of
// all receivers of a process.
//
// An element is consumed when Recv returns it, when the body of an All loop has ended for it, or
// when Consume says so ([WithExplicitConsume]). The sender learns of it from [Sender.Consumed],
// [Sender.Finish] or [WithOnConsumed]. A sender that forwards messages of a broker can
// acknowledge them then.
//
// # Pipelines and fan-out
//
// [Pipe] connects a receiver to a sender through a function, so that demand travels from the end
// of a pipeline to its source. An [Outbox] serves a producer that cannot be slowed down. Its
// policy selects the elements to drop. A [Topic] sends one source to many subscribers, and a slow
// subscriber does not delay the others.
//
// # How a stream ends
//
// Each direction ends once: with Close (Recv returns io.EOF), with CloseGoingAway
// ([ErrGoingAway]), with CloseWithError, or with the error that breaks the stream. The receiver
// may call [Receiver.Cancel], and Send then returns [ErrCanceled]. If the peer breaks the
// protocol, the stream ends with a [*ProtocolError], which gives the [Reason], got and want. A
// handler returns it as its status. The window bounds the elements that a hostile peer can make
// this end hold, and a token bucket bounds the control messages that it can send.
//
// # Validators and grpcurl
//
// Control travels in the messages of the method. A validator in an interceptor also sees messages
// with no field but the Control. It must let them pass, although required fields are missing in
// them. grpcurl can speak the protocol by hand. The option -d with
// {"credit":{"open":{"willReceive":true,"initial":{"n":10}}}} opens a subscription of ten
// elements, and prints the server's Open, the elements and Complete.
//
// The wire contract for other languages is proto/weir/credit/v1/credit.proto. The program
// conformance is its test suite.
package streamcredit
