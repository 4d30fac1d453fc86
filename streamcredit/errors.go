package streamcredit

import (
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

var (
	// ErrCanceled is what Send returns when the receiver wants no more: it sent
	// Cancel, or it has left and its last credit is used. The error that wraps
	// it says why, and has the status CANCELED.
	ErrCanceled = errors.New("streamcredit: the receiver has canceled")

	// ErrClosed is what Send returns after Close, CloseWithError or Finish, and
	// what Recv returns after Close or Cancel.
	ErrClosed = errors.New("streamcredit: closed")

	// ErrGoingAway is what Recv returns where the sender ended with
	// [Sender.CloseGoingAway]: what it had sent was received, but there would
	// have been more. Another server may have it.
	ErrGoingAway = errors.New("streamcredit: the sender is going away before the end")

	// ErrTooLarge is what Send returns for an element that the receiver has said
	// it would not take. It was not sent, and its credit is not used. The error that
	// wraps it says the sizes, and has the status RESOURCE_EXHAUSTED with the reason
	// MESSAGE_TOO_LARGE.
	ErrTooLarge = errors.New("streamcredit: the element is too large")

	// ErrInvalid is wrapped by errors about arguments and options of the caller's.
	ErrInvalid = errors.New("streamcredit: invalid")
)

// An UnconsumedError is the error of Finish when the receiver has ended the stream in order,
// and has not reported all elements as consumed. It wraps [ErrCanceled]. A weir server reports
// the first 16 elements one by one, then whenever it has none left, and otherwise at most every
// 100 µs: a handler that consumes faster and returns while elements wait may have consumed a few
// more than Consumed. If a report could not be written in time, Finish returns nil.
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
func (e *UnconsumedError) GRPCStatus() *status.Status { return status.New(codes.Canceled, e.Error()) }

// invalid returns an error that wraps ErrInvalid.
func invalid(format string, args ...any) error {
	return &misuse{text: fmt.Sprintf(format, args...)}
}

// A misuse is an error of this process's program. A handler that returns it tells the
// client that something is wrong here, and not what.
type misuse struct{ text string }

func (m *misuse) Error() string { return ErrInvalid.Error() + ": " + m.text }

func (*misuse) Unwrap() error { return ErrInvalid }

// GRPCStatus is how package status finds the status of an error.
func (*misuse) GRPCStatus() *status.Status {
	return status.New(codes.Internal, "streamcredit: the server uses the stream in a wrong way")
}

// domain is the domain of the ErrorInfo in a status.
const domain = "weir"

// A Reason names a violation of the protocol, as it stands in the ErrorInfo of the
// status. The set is closed.
type Reason string

// The reasons. Each has one code.
const (
	InvalidDemand       Reason = "INVALID_DEMAND"
	DemandTooLarge      Reason = "DEMAND_TOO_LARGE"
	UnexpectedFrame     Reason = "UNEXPECTED_FRAME"
	VersionMismatch     Reason = "VERSION"
	CreditExceeded      Reason = "CREDIT_EXCEEDED"
	BytesExceeded       Reason = "BYTES_EXCEEDED"
	MessageTooLarge     Reason = "MESSAGE_TOO_LARGE"
	AfterTerminal       Reason = "AFTER_TERMINAL"
	CountMismatch       Reason = "COUNT_MISMATCH"
	InvalidConsumed     Reason = "INVALID_CONSUMED"
	ControlFlood        Reason = "CONTROL_FLOOD"
	HandshakeTimeout    Reason = "HANDSHAKE_TIMEOUT"
	FirstRequestTimeout Reason = "FIRST_REQUEST_TIMEOUT"
	CreditStarved       Reason = "CREDIT_STARVED"
	PeerStalled         Reason = "PEER_STALLED"
	BudgetExhausted     Reason = "BUDGET_EXHAUSTED"
)

// Code returns the gRPC code of a violation for that reason, UNKNOWN for a reason
// that is none.
func (r Reason) Code() codes.Code {
	switch r {
	case InvalidDemand, InvalidConsumed:
		return codes.InvalidArgument
	case UnexpectedFrame, VersionMismatch, AfterTerminal:
		return codes.FailedPrecondition
	case DemandTooLarge, CreditExceeded, BytesExceeded, MessageTooLarge, ControlFlood, BudgetExhausted:
		return codes.ResourceExhausted
	case CountMismatch:
		return codes.DataLoss
	case HandshakeTimeout, FirstRequestTimeout, CreditStarved:
		return codes.DeadlineExceeded
	case PeerStalled:
		return codes.Unavailable
	}
	return codes.Unknown
}

// A ProtocolError says that the peer broke the protocol, or that one of its time
// limits passed. It ends the stream in both directions. A server's handler should
// return it: it carries the status that the protocol asks for.
type ProtocolError struct {
	// Reason is what kind of violation it is.
	Reason Reason
	// Got and Want say what happened and what should have, for people.
	Got, Want string
}

// Error returns the reason, what was got and what was wanted.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("streamcredit: %s: got %s, want %s", e.Reason, e.Got, e.Want)
}

// GRPCStatus returns the status of the violation, with the reason as ErrorInfo.
// Package status finds it.
func (e *ProtocolError) GRPCStatus() *status.Status {
	st := status.New(e.Reason.Code(), e.Error())
	if detailed, err := st.WithDetails(&errdetails.ErrorInfo{Reason: string(e.Reason), Domain: domain}); err == nil {
		return detailed
	}
	return st
}

// violation returns a ProtocolError; got is a format.
func violation(r Reason, want, got string, args ...any) *ProtocolError {
	return &ProtocolError{Reason: r, Got: fmt.Sprintf(got, args...), Want: want}
}

// A tooLarge is ErrTooLarge with the sizes.
type tooLarge struct{ size, most int64 }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("%v: got %d bytes, want at most %d", ErrTooLarge, e.size, e.most)
}

func (*tooLarge) Unwrap() error { return ErrTooLarge }

// GRPCStatus returns the status that a client gets from a handler that returns e.
func (e *tooLarge) GRPCStatus() *status.Status {
	return violation(MessageTooLarge, fmt.Sprintf("at most %d bytes", e.most), "an element of %d", e.size).GRPCStatus()
}

// canceled is ErrCanceled with what the receiver said.
type canceled struct{ reason string }

func (c *canceled) Error() string {
	if c.reason == "" {
		return ErrCanceled.Error()
	}
	return ErrCanceled.Error() + ": " + c.reason
}

func (*canceled) Unwrap() error                { return ErrCanceled }
func (c *canceled) GRPCStatus() *status.Status { return status.New(codes.Canceled, c.Error()) }

// broken returns the error for a violation that a ledger has found.
func broken(v *ledger.Violation) *ProtocolError {
	if v == nil {
		return nil
	}
	return &ProtocolError{Reason: Reason(v.Reason), Got: v.Got, Want: v.Want}
}
