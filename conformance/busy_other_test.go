//go:build !unix

package main_test

import (
	"testing"
	"time"
)

// busy skips the test: there is no portable way to ask for the time that a process was busy.
func busy(t *testing.T) time.Duration {
	t.Helper()
	t.Skip("getrusage is of unix only")
	return 0
}
