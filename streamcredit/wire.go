package streamcredit

import (
	"context"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A wire carries control and elements on a gRPC stream. O and I are the types of the elements
// that go out and come in. Reading and writing may go on at once, each by one goroutine at a
// time.
type wire[O, I any] interface {
	writes[O]
	reads[I]
}

// writes is the part of a wire that writes.
type writes[O any] interface {
	// writeControl writes c alone.
	writeControl(c *creditpb.Control) error
	// writeElement writes e.
	writeElement(e O) error
	// writeSetup writes a client's Open with the setup element e.
	writeSetup(open *creditpb.Control, e O) error
	// writeHalfClose half-closes a client's stream. Nothing is written after it.
	writeHalfClose() error
	// flush waits until everything that was written is in the transport's hands.
	flush(ctx context.Context) error
	// check returns why e cannot be an element.
	check(e O) error
	// setup returns m as an element.
	setup(m any) (O, error)
	// sizeOut returns the size of e in bytes.
	sizeOut(e O) int
	queues
}

// queues is the part of a wire that may write from a goroutine of its own.
type queues interface {
	// batch allows several elements in one message of at most that many bytes.
	batch(most int64)
	// warns says that the client knows unfinishedTrailer, as FEATURE_UNFINISHED demands.
	warns()
	// bind sets two functions. The wire calls broke after a failed write that it cannot report to
	// a caller, and eased when it is no longer crowded.
	bind(broke func(error), eased func())
	// carried reports whether a goroutine of the wire is writing, and how many messages such
	// goroutines have written.
	carried() (writing bool, messages uint64)
	// join waits for such goroutines after the end of the stream.
	join()
	// crowded reports whether much control waits for the transport. Further control should stay
	// in pending, where it adds up.
	crowded() bool
}

// reads is the part of a wire that reads.
type reads[I any] interface {
	// read returns the next message, its elements appended to into.
	read(into []I) (*creditpb.Control, []I, error)
	// call returns the gRPC stream.
	call() any
	// sizeIn returns the size of e in bytes.
	sizeIn(e I) int
}
