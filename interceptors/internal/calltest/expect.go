package calltest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// WantCode checks the code of an error.
func WantCode(tb testing.TB, err error, want codes.Code) {
	tb.Helper()
	if got := status.Code(err); got != want {
		tb.Errorf("code: got %v (%v), want %v", got, err, want)
	}
}

// Golden compares a trace, to the letter, with a file of testdata. With
// WEIR_GOLDEN=write in the environment it writes the file.
func Golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if os.Getenv("WEIR_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path) //nolint:gosec // the name comes from a test
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from testdata/%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// WantDetails checks the details of an error's status.
func WantDetails(t *testing.T, err error, reason string, least, most time.Duration) {
	t.Helper()
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if info.GetReason() != reason || info.GetDomain() != "weir" {
		t.Errorf("ErrorInfo: got %v, want the reason %s and the domain weir", info, reason)
	}
	if got := retry.GetRetryDelay().AsDuration(); got < least || got > most {
		t.Errorf("RetryInfo: got %v, want %v to %v", got, least, most)
	}
}

// WantConfigError checks that an error wraps kind and names every mistake in want.
func WantConfigError(t *testing.T, err, kind error, want ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error: got %v, want one that wraps %q", err, kind)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error: got %q, want it to contain %q", err, w)
		}
	}
}
