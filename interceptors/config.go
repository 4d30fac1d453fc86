package interceptors

import (
	"errors"
	"fmt"
	"time"
)

// ErrConfig is wrapped by every error of [Server], [Client], [NewBreaker], [NewThrottle]
// and [RetryConfig.ServiceConfig]. Such an error names each wrong value at once, with
// what was wanted.
var ErrConfig = errors.New("interceptors: invalid configuration")

// checks gathers every wrong value of a configuration.
type checks []error

func (c *checks) that(ok bool, format string, args ...any) {
	if !ok {
		*c = append(*c, fmt.Errorf(format, args...))
	}
}

// between checks lo <= got <= hi; it is false for NaN.
func between[T int | float64 | time.Duration](c *checks, name string, got, lo, hi T) {
	c.that(got >= lo && got <= hi, "%s: got %v, want %v to %v", name, got, lo, hi)
}

// from adds the errors of a part, without their own prefix.
func (c *checks) from(what string, err error) {
	if err == nil {
		return
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		c.that(err == ErrConfig, "%s: %w", what, err) //nolint:errorlint // one of the parts
		return
	}
	for _, e := range several.Unwrap() {
		c.from(what, e)
	}
}

func (c checks) err() error {
	if len(c) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConfig, errors.Join(c...))
}

// or returns v, or def when v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
