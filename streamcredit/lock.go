package streamcredit

import (
	"context"
	"sync/atomic"
)

// A lock is a mutex with a wait that a context can end. The wait is durable in a testing/synctest
// bubble.
type lock struct {
	held    atomic.Bool
	waiters atomic.Int32
	free    chan struct{} // of capacity 1; the lock was released while a goroutine waits
}

func newLock() *lock { return &lock{free: make(chan struct{}, 1)} }

func (l *lock) tryLock() bool { return l.held.CompareAndSwap(false, true) }

// lockUntil waits for the lock until ctx ends.
func (l *lock) lockUntil(ctx context.Context) error {
	if l.tryLock() {
		return nil
	}
	l.waiters.Add(1) // before the next look, so that unlock cannot miss both
	defer l.waiters.Add(-1)
	for !l.tryLock() {
		select {
		case <-l.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l *lock) unlock() {
	l.held.Store(false)
	if l.waiters.Load() > 0 {
		signal(l.free)
	}
}
