package limit

import "github.com/weir-go/weir/internal/check"

// Fixed is a limit that does not change. Use it if the capacity is known and constant,
// as with a pool of connections.
type Fixed struct{ n int }

// NewFixed returns a limit of n calls, 1 to Max; otherwise an error that wraps
// ErrConfig.
func NewFixed(n int) (*Fixed, error) {
	var bad check.Errors
	bad.That(n >= 1 && n <= Max, "limit: got %d, want 1 to %d", n, Max)
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return &Fixed{n: n}, nil
}

// Limit implements Algorithm.
func (f *Fixed) Limit() int { return f.n }

// Update implements Algorithm. It changes nothing.
func (f *Fixed) Update(Window) int { return f.n }
