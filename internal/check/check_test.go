package check_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/internal/check"
)

var (
	errKind = errors.New("part: invalid configuration")
	errAll  = errors.New("all: invalid configuration")
)

func TestEveryMistakeIsNamedOnce(t *testing.T) {
	var part check.Errors
	check.Between(&part, "Ratio", math.NaN(), 0, 1)
	check.Between(&part, "Window", time.Second, time.Minute, time.Hour)
	check.Between(&part, "Fine", 1, 1, 1)
	check.Positive(&part, "Share", math.NaN())
	check.Positive(&part, "Size", int64(0))
	check.Positive(&part, "Fine", time.Nanosecond)
	check.NotNegative(&part, "Grace", -time.Second, 5*time.Second)
	check.NotNegative(&part, "Bytes", int64(-1), "no bound")
	check.NotNegative(&part, "Fine", 0, "no bound")
	part.That(true, "fine")
	var all check.Errors
	all.From("Part", part.Err(errKind), errKind)
	all.From("None", nil, errKind)
	err := all.Err(errAll)
	if !errors.Is(err, errAll) {
		t.Errorf("error: got %v, want one that wraps %q", err, errAll)
	}
	want := "all: invalid configuration: " + strings.Join([]string{
		"Part: Ratio: got NaN, want 0 to 1",
		"Part: Window: got 1s, want 1m0s to 1h0m0s",
		"Part: Share: got NaN, want more than 0",
		"Part: Size: got 0, want more than 0",
		"Part: Grace: got -1s, want more than 0, or 0 for 5s",
		"Part: Bytes: got -1, want more than 0, or 0 for no bound",
	}, "\n")
	if err.Error() != want {
		t.Errorf("error: got %q, want %q", err, want)
	}
	if strings.Contains(err.Error(), "part:") {
		t.Errorf("error: got %q, want it without the kind of a part", err)
	}
}

func TestNoMistakeIsNoError(t *testing.T) {
	var none check.Errors
	if err := none.Err(errKind); err != nil {
		t.Errorf("error of no mistakes: got %v, want nil", err)
	}
}

func TestErrorsAreWrapped(t *testing.T) {
	cause := errors.New("cause")
	one := check.One(errKind, "part %d: %w", 1, cause)
	if want := errKind.Error() + ": part 1: cause"; one.Error() != want || !errors.Is(one, errKind) || !errors.Is(one, cause) {
		t.Errorf("One: got %v, want %q, which wraps the kind and the cause", one, want)
	}
	var bad check.Errors
	bad.Add(nil)
	bad.That(false, "part: %w", cause)
	bad.Add(errors.New("other"))
	err := bad.Err(errKind)
	if want := errKind.Error() + ": part: cause\nother"; err == nil || err.Error() != want {
		t.Errorf("error: got %v, want %q", err, want)
	}
	if !errors.Is(err, errKind) || !errors.Is(err, cause) {
		t.Errorf("error: got %v, want it to wrap the kind and the cause", err)
	}
}
