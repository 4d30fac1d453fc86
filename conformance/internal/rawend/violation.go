package rawend

import (
	"errors"
	"io"
)

// The errors of a direction that ended, besides io.EOF and statusErrors. errTooLarge and errLate are the
// errors of one send, and do not end the direction.
var (
	errCanceled  = errors.New("the receiver has canceled")
	errGoingAway = errors.New("the sender is going away")
	errTooLarge  = errors.New("too large for the receiver")
	errLate      = errors.New("it took too long")
)

// kindOf returns the kind of the end of a direction, and its status if it failed.
func kindOf(err error) (int, *statusError) {
	var s *statusError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return kindOfComplete, nil
	case errors.Is(err, errGoingAway):
		return kindOfGoingAway, nil
	case errors.As(err, &s):
		return kindOfFailed, s
	default:
		return kindOfCanceled, nil
	}
}

// codeOf has the status code of each violation.
var codeOf = map[string]int{
	"INVALID_DEMAND": invalidArgumentCode, "INVALID_CONSUMED": invalidArgumentCode,
	"UNEXPECTED_FRAME": failedPrecondition, "VERSION": failedPrecondition, "AFTER_TERMINAL": failedPrecondition,
	"DEMAND_TOO_LARGE": resourceExhaustedCode, "CREDIT_EXCEEDED": resourceExhaustedCode, "BYTES_EXCEEDED": resourceExhaustedCode,
	"MESSAGE_TOO_LARGE": resourceExhaustedCode, "CONTROL_FLOOD": resourceExhaustedCode,
	"COUNT_MISMATCH":    dataLossCode,
	"HANDSHAKE_TIMEOUT": deadlineExceededCode, "FIRST_REQUEST_TIMEOUT": deadlineExceededCode, "CREDIT_STARVED": deadlineExceededCode,
	"PEER_STALLED": unavailableCode,
}

func violation(reason string) error {
	return &statusError{code: codeOf[reason], reason: reason, message: "raw: " + reason}
}
