// Package ledger keeps the accounts of a credit stream. Each direction has one ledger, and each
// ledger has one state. The package does no I/O, takes no lock, reads no clock and does not
// depend on gRPC. Its types are not safe for concurrent use.
//
// [Out] is the ledger of the direction in which this end sends, and [In] of the direction in
// which it receives. [OutState] and [InState] have tables of the events in each state.
package ledger

import (
	"fmt"
	"math"
)

// Unbounded is demand that elements do not use up.
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

// A Budget grants the credit of a receiver's ledger. A ledger without a budget has a nil Budget.
type Budget interface {
	// Take requests n credits and returns how many are granted.
	Take(n int64) int64
	// Arrived exchanges a credit for an element of size bytes.
	Arrived(size int64)
	// Consumed releases n elements of bytes in total.
	Consumed(n, bytes int64)
	// Burned releases n unused credits.
	Burned(n int64)
	// Want says whether the receiver wants more than it got.
	Want(more bool)
	// Close releases all credit. Elements that have arrived count until they are consumed.
	Close()
}
