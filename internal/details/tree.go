package details

import "iter"

// Tree returns an error and all errors that it wraps, from the outside to the inside. Several
// errors may be joined, of which only one is a refusal.
func Tree(err error) iter.Seq[error] {
	return func(yield func(error) bool) { walk(err, yield) }
}

// walk reports whether yield wants more.
func walk(err error, yield func(error) bool) (more bool) {
	if err == nil {
		return true
	}
	if !yield(err) {
		return false
	}
	switch err := err.(type) { //nolint:errorlint // it unwraps
	case interface{ Unwrap() error }:
		return walk(err.Unwrap(), yield)
	case interface{ Unwrap() []error }:
		for _, e := range err.Unwrap() {
			if !walk(e, yield) {
				return false
			}
		}
	}
	return true
}
