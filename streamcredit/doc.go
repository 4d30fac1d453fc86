// Package streamcredit is request(n) for bidirectional gRPC streams: the receiver says
// how many elements it wants, and the sender never has more than that outstanding.
//
// gRPC alone bounds bytes in transit, not what piles up behind a slow consumer: HTTP/2's
// windows grow with the bandwidth of the whole connection, up to 16 MiB for each stream
// that nobody reads. With credit the bound is the receiver's, in elements.
//
// # Three lines
//
// Give the request and the response message of the method one field,
//
//	import "weir/credit/v1/credit.proto";
//	message Event { string body = 1; weir.credit.v1.Control credit = 15; }
//
// and let the two ends of the stream do the talking. The server, which sends here:
//
//	out, query, err := streamcredit.ServeSend(stream)
//	...
//	err = out.Send(ctx, event) // waits until the client has asked for it
//	...
//	return out.Finish(ctx)
//
// The client, which receives:
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
// clients have moved, protect the old method with interceptors.WithSendStall, which ends streams
// whose clients read nothing, and with admit.WithMaxOpen, which bounds the number of streams.
//
// # How much is asked for
//
// By default a receiver finds its window by itself ([WithAutoWindow]). [WithWindow] fixes
// it: at most so many elements are asked for and not consumed, which is also the bound of
// what the receiver holds. With [WithManualDemand] nothing comes that [Receiver.Request]
// did not ask for. [WithByteWindow] bounds bytes, and a [Budget] what all receivers of a
// process hold together.
//
// An element is consumed when Recv returns it, when the body of an All loop has ended for
// it, or when Done says so ([WithExplicitDone]). The sender learns of it
// ([Sender.Consumed], [Sender.Finish], [WithOnConsumed]): what came from a broker can be
// acknowledged then.
//
// # In between
//
// [Pipe] connects a receiver to a sender through a function, so that demand travels from the
// end of a pipeline to its source. An [Outbox] is for producers that cannot be slowed down;
// its policy says what is dropped. A [Topic] sends one source to many subscribers of whom
// none slows another.
//
// # Ends
//
// Each direction ends once: with Close (Recv returns io.EOF), CloseGoingAway
// ([ErrGoingAway]), CloseWithError, or the error with which the stream breaks. The receiver
// may [Receiver.Cancel], and Send then returns [ErrCanceled]. A peer that breaks the rules
// ends the stream with a [*ProtocolError] that names the [Reason], got and want; a handler
// returns it as its status. What a hostile peer can cost is bounded: by the window in
// elements, and in control messages by a bucket.
//
// # Validators and grpcurl
//
// Control travels in the messages of the method. A validator in an interceptor sees messages
// whose only field is the Control, and must let them pass: a required field is missing in
// them. grpcurl speaks the protocol by hand: -d with {"credit":{"open":{"willReceive":true,
// "initial":{"n":10}}}} opens a subscription of ten elements, and prints the server's Open, the
// elements and Complete.
//
// The wire contract, for other languages, is proto/weir/credit/v1/credit.proto; the
// conformance suite is the program conformance.
package streamcredit
