package streamcredit

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

var (
	// ErrCanceled is the error of Send when the receiver wants no more elements. The receiver has
	// sent Cancel, or it has half-closed and its last credit is used. The error that wraps
	// ErrCanceled gives the receiver's reason, and has the status CANCELED.
	ErrCanceled = errors.New("streamcredit: the receiver has canceled")

	// ErrClosed is the error of Send after Close, CloseWithError or Finish, and of Recv after
	// Close or Cancel.
	ErrClosed = errors.New("streamcredit: closed")

	// ErrGoingAway is the error of Recv at the end of a direction that the sender ended with
	// [Sender.CloseGoingAway]. All elements that it sent were received, but it had more to send.
	// Another server may have them.
	ErrGoingAway = errors.New("streamcredit: the sender is going away before the end")

	// ErrTooLarge is the error of Send for an element that is larger than the receiver's limit.
	// The element was not sent, and its credit is not used. The error that wraps ErrTooLarge
	// gives the sizes, and has the status RESOURCE_EXHAUSTED with the reason MESSAGE_TOO_LARGE.
	ErrTooLarge = errors.New("streamcredit: the element is too large")

	// ErrInvalid is wrapped by errors about the caller's arguments and options.
	ErrInvalid = errors.New("streamcredit: invalid")
)

// An UnconsumedError is the error of Finish when the receiver has ended the stream without a
// failure, but has not reported all elements as consumed. It wraps [ErrCanceled]. A weir server
// reports the first 16 elements one by one, then whenever it has none left, and otherwise at most
// every 100 µs. If its handler consumes faster and returns while elements wait, it may have
// consumed a few more than Consumed. If a report could not be written in time, Finish returns
// nil.
type UnconsumedError struct {
	Sent     uint64 // elements
	Consumed uint64 // elements that the receiver has reported, the first ones
}

// Error returns how many elements were sent and how many of them were not consumed.
func (e *UnconsumedError) Error() string {
	return fmt.Sprintf("%v: it has ended the stream and left %d of %d elements unconsumed", ErrCanceled, e.Sent-e.Consumed, e.Sent)
}

// Unwrap returns ErrCanceled.
func (*UnconsumedError) Unwrap() error { return ErrCanceled }

// GRPCStatus returns the error with the code CANCELED. Package status finds it.
func (e *UnconsumedError) GRPCStatus() *status.Status { return canceledStatus(e.Error()) }

// invalid returns the error for one mistake. It wraps ErrInvalid. The format begins with the name
// of the argument, the option or the function, as in "Request: got %d, want at least 1".
func invalid(format string, args ...any) error {
	return &misuse{check.One(ErrInvalid, format, args...)}
}

// misused returns one error for all mistakes, which wraps ErrInvalid, or nil if there are none.
func misused(bad check.Errors) error {
	if err := bad.Err(ErrInvalid); err != nil {
		return &misuse{err}
	}
	return nil
}

// A misuse is an error of this process's program. If a handler returns it, the client learns that
// the server is at fault, but no details.
type misuse struct{ mistakes error }

func (m *misuse) Error() string { return m.mistakes.Error() }

func (m *misuse) Unwrap() error { return m.mistakes }

// GRPCStatus returns the status INTERNAL without details. Package status finds it.
func (*misuse) GRPCStatus() *status.Status { return faultStatus("the handler misused the stream") }

// A Reason says why a stream was ended. It is the reason of the ErrorInfo in the status. These
// reasons say that the peer broke the protocol: InvalidDemand, DemandTooLarge, UnexpectedFrame,
// VersionMismatch, CreditExceeded, BytesExceeded, MessageTooLarge, AfterTerminal, CountMismatch,
// InvalidConsumed and ControlFlood. These say that the peer exceeded a time limit: HandshakeTimeout,
// FirstRequestTimeout, CreditStarved and PeerStalled. BudgetExhausted says that this end has no room.
// There are no others.
type Reason string

// The reasons. Each has one code.
const (
	InvalidDemand       Reason = "INVALID_DEMAND"        // a Request or a bound with a number that is not allowed
	DemandTooLarge      Reason = "DEMAND_TOO_LARGE"      // more demand than WithMaxPeerDemand allows
	UnexpectedFrame     Reason = "UNEXPECTED_FRAME"      // a message that the handshake or the state does not allow
	VersionMismatch     Reason = "VERSION"               // no common version, or a feature that is needed is missing
	CreditExceeded      Reason = "CREDIT_EXCEEDED"       // an element that was not requested
	BytesExceeded       Reason = "BYTES_EXCEEDED"        // an element beyond the byte window
	MessageTooLarge     Reason = "MESSAGE_TOO_LARGE"     // an element larger than WithMaxMessageBytes allows
	AfterTerminal       Reason = "AFTER_TERMINAL"        // a message after the end of its direction
	CountMismatch       Reason = "COUNT_MISMATCH"        // another number of elements than the sender says, or no end
	InvalidConsumed     Reason = "INVALID_CONSUMED"      // a report of elements that were not sent, or fewer than before
	ControlFlood        Reason = "CONTROL_FLOOD"         // more control messages than the protocol allows
	HandshakeTimeout    Reason = "HANDSHAKE_TIMEOUT"     // no Open in time; see WithHandshakeTimeout
	FirstRequestTimeout Reason = "FIRST_REQUEST_TIMEOUT" // no first Request in time; see WithFirstRequestTimeout
	CreditStarved       Reason = "CREDIT_STARVED"        // no demand for a Send in time; see WithSendStallTimeout
	PeerStalled         Reason = "PEER_STALLED"          // no message and no heartbeat in time; see WithHeartbeat
	BudgetExhausted     Reason = "BUDGET_EXHAUSTED"      // no room for one more stream in the Budget
)

// A ProtocolError says that the peer broke the protocol, or exceeded one of its time limits. It
// ends the stream in both directions. A server's handler should return it, because it carries the
// status that the protocol demands.
type ProtocolError struct {
	// Reason is the kind of violation.
	Reason Reason
	// Got and Want describe the peer's behavior and the rule, for people.
	Got, Want string
}

// Error returns the reason, got and want.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("streamcredit: %s: got %s, want %s", e.Reason, e.Got, e.Want)
}

// GRPCStatus returns the status of the violation, with the reason as ErrorInfo.
// Package status finds it.
func (e *ProtocolError) GRPCStatus() *status.Status { return reasonStatus(e.Reason, e.Error()) }

// violation returns a ProtocolError; got is a format.
func violation(r Reason, want, got string, args ...any) *ProtocolError {
	return &ProtocolError{Reason: r, Got: fmt.Sprintf(got, args...), Want: want}
}

// A tooLarge is ErrTooLarge with the size of the element and the limit.
type tooLarge struct{ size, most int64 }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("%v: got %d bytes, want at most %d", ErrTooLarge, e.size, e.most)
}

func (*tooLarge) Unwrap() error { return ErrTooLarge }

// GRPCStatus returns the status of a handler that returns e.
func (e *tooLarge) GRPCStatus() *status.Status {
	return violation(MessageTooLarge, fmt.Sprintf("at most %d bytes", e.most), "an element of %d", e.size).GRPCStatus()
}

// canceled is ErrCanceled with the receiver's reason.
type canceled struct{ reason string }

func (c *canceled) Error() string {
	if c.reason == "" {
		return ErrCanceled.Error()
	}
	return ErrCanceled.Error() + ": " + c.reason
}

func (*canceled) Unwrap() error                { return ErrCanceled }
func (c *canceled) GRPCStatus() *status.Status { return canceledStatus(c.Error()) }

// broken returns the error for a violation that a ledger has found.
func broken(v *ledger.Violation) *ProtocolError {
	if v == nil {
		return nil
	}
	return &ProtocolError{Reason: Reason(v.Reason), Got: v.Got, Want: v.Want}
}
