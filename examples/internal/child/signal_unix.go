//go:build unix

package child

import (
	"os"
	"syscall"
)

func signaled(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return -1
}
