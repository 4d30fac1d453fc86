// Package check collects the mistakes of a configuration, so that a constructor reports
// all of them in one error.
package check

import (
	"errors"
	"fmt"
	"time"
)

// Errors holds every mistake that was found. The zero Errors is empty. It is not safe for
// concurrent use.
type Errors []error

// That adds an error unless ok is true. The format follows fmt.Errorf.
func (e *Errors) That(ok bool, format string, args ...any) {
	if !ok {
		*e = append(*e, fmt.Errorf(format, args...))
	}
}

// Add adds an error unless it is nil.
func (e *Errors) Add(err error) {
	if err != nil {
		*e = append(*e, err)
	}
}

// A Number is a setting with an order.
type Number interface {
	int | int64 | float64 | time.Duration
}

// Between adds an error unless lo <= got <= hi. NaN is always an error.
func Between[T Number](e *Errors, name string, got, lo, hi T) {
	e.That(got >= lo && got <= hi, "%s: got %v, want %v to %v", name, got, lo, hi)
}

// Positive adds an error unless got > 0. NaN is an error.
func Positive[T Number](e *Errors, name string, got T) {
	e.That(got > 0, "%s: got %v, want more than 0", name, got)
}

// NotNegative adds an error unless got >= 0. NaN is an error. The error names the meaning of zero,
// such as a default or "no bound".
func NotNegative[T Number](e *Errors, name string, got T, zero any) {
	e.That(got >= 0, "%s: got %v, want more than 0, or 0 for %v", name, got, zero)
}

// From adds the mistakes of one part of a configuration, each with the name of the part in
// front. It leaves out kind, the sentinel that err wraps, and its text. A nil err is none.
func (e *Errors) From(part string, err, kind error) {
	if err == nil || err == kind { //nolint:errorlint // the sentinel itself, as one of several
		return
	}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			e.From(part, one, kind)
		}
		return
	}
	e.That(false, "%s: %w", part, err)
}

// Err returns all mistakes as one error that wraps kind, or nil if there are none.
func (e Errors) Err(kind error) error {
	if len(e) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", kind, errors.Join(e...))
}

// One returns the error for one mistake, which wraps kind. The format follows fmt.Errorf.
func One(kind error, format string, args ...any) error {
	var bad Errors
	bad.That(false, format, args...)
	return bad.Err(kind)
}
