//go:build !linux

package rawload_test

import (
	"errors"
	"time"
)

// Elsewhere processes are not pinned, and their processor time is not known.

func processors() []int { return nil }

func pin(int, ...int) error { return errors.ErrUnsupported }

func pinAll(...int) error { return errors.ErrUnsupported }

func cpuTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
