package check_test

import (
	"errors"
	"testing"

	"github.com/weir-go/weir/internal/check"
)

func TestErrors(t *testing.T) {
	sentinel, cause := errors.New("a: invalid"), errors.New("cause")
	var bad check.Errors
	bad.That(true, "not wrong")
	bad.Add(nil)
	if err := bad.Err(sentinel); err != nil {
		t.Fatalf("nothing wrong: got %v, want no error", err)
	}
	bad.That(false, "size: got %d, want %d", 1, 2)
	bad.That(false, "part: %w", cause)
	bad.Add(errors.New("other"))
	err := bad.Err(sentinel)
	if want := "a: invalid: size: got 1, want 2\npart: cause\nother"; err == nil || err.Error() != want {
		t.Errorf("error: got %v, want %q", err, want)
	}
	if !errors.Is(err, sentinel) || !errors.Is(err, cause) {
		t.Errorf("error: got %v, want it to wrap the sentinel and the cause", err)
	}
}
