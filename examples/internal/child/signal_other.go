//go:build !unix

package child

import "os"

func signaled(*os.ProcessState) int { return -1 }
