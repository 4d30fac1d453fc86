package admit_test

import (
	"testing"

	"go.uber.org/goleak"
)

// No test may leave a goroutine behind: a gate has none of its own.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
