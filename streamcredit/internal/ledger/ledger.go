// Package ledger keeps the accounts of a credit stream: one ledger for each direction, each with
// one state. It does no I/O, takes no lock, reads no clock and knows nothing of gRPC. Its types
// are not safe for concurrent use.
//
// [Out] is the ledger of the direction in which this end sends, [In] that of the direction in
// which it receives. The tables of [OutState] and [InState] say what each event leads to in each
// state.
package ledger

import (
	"fmt"
	"math"
)

// Unbounded is demand that no element lowers.
const Unbounded = math.MaxInt64

// Saturate returns a + b, at most [Unbounded]. Neither may be negative.
func Saturate(a, b int64) int64 {
	if b > Unbounded-a {
		return Unbounded
	}
	return a + b
}

// The reasons of violations, as the protocol names them.
const (
	AfterTerminal   = "AFTER_TERMINAL"
	BytesExceeded   = "BYTES_EXCEEDED"
	CountMismatch   = "COUNT_MISMATCH"
	CreditExceeded  = "CREDIT_EXCEEDED"
	InvalidConsumed = "INVALID_CONSUMED"
	MessageTooLarge = "MESSAGE_TOO_LARGE"
	UnexpectedFrame = "UNEXPECTED_FRAME"
)

// A Violation says how the peer broke the protocol. It ends the stream.
type Violation struct {
	Reason    string
	Want, Got string // for people
}

func violation(reason, want, got string, args ...any) *Violation {
	return &Violation{Reason: reason, Want: want, Got: fmt.Sprintf(got, args...)}
}

// A Budget is what a receiver's ledger takes its credit from. Nil methods do not exist: a ledger
// without a budget has none.
type Budget interface {
	// Take asks for n credits and returns how many it gets.
	Take(n int64) int64
	// Arrived exchanges a credit for an element of size bytes.
	Arrived(size int64)
	// Consumed gives back n elements of bytes together.
	Consumed(n, bytes int64)
	// Burned gives back n credits.
	Burned(n int64)
	// Want says whether the receiver wants more than it got.
	Want(more bool)
	// Close gives back all credit. Elements that have arrived count until they are consumed.
	Close()
}
