package memory_test

import (
	"testing"

	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/memory"
)

// The sizes follow from the memory, hold their bounds.
func TestSizes(t *testing.T) {
	for mib, want := range map[int64]string{
		16:      "memory 16 MiB: requests up to 256 KiB, 100 streams a connection, windows of 64 KiB a stream and 256 KiB a connection, 4 MiB of messages",
		256:     "memory 256 MiB: requests up to 4 MiB, 1000 streams a connection, windows of 256 KiB a stream and 1 MiB a connection, 64 MiB of messages",
		4096:    "memory 4 GiB: requests up to 4 MiB, 1000 streams a connection, windows of 1 MiB a stream and 4 MiB a connection, 1 GiB of messages",
		1 << 22: "memory 4 TiB: requests up to 4 MiB, 1000 streams a connection, windows of 1 MiB a stream and 4 MiB a connection, 1 TiB of messages",
	} {
		s, err := memory.SizesFor(mib << 20)
		if err != nil || s.String() != want {
			t.Errorf("%d MiB: got %v, %v, want %s", mib, s, err, want)
		}
	}
	_, err := memory.SizesFor(-1)
	calltest.WantConfigError(t, err, memory.ErrConfig, "got -1 bytes, want at least 16777216")
}
