// Package check gathers the errors of a configuration, so that an operator sees all of
// them at once.
package check

import (
	"errors"
	"fmt"
)

// Errors are the errors of one configuration. The zero value has none. It is not safe
// for concurrent use.
type Errors []error

// That adds an error unless ok is true. The format is that of fmt.Errorf.
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

// Err returns one error that wraps the sentinel and all errors, or nil if there are none.
func (e Errors) Err(sentinel error) error {
	if len(e) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", sentinel, errors.Join(e...))
}
