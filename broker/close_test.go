package broker_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/broker"
)

func goexit() { runtime.Goexit() }

// Close gives back the buffer at once, and waits for the messages that are in use.
func TestSourceCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(5)
		s := q.source(t, broker.SourceConfig{ExtendEvery: time.Second})
		s.Request(4)
		used := next(t, s)
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- s.Close(t.Context()) }()
		synctest.Wait()
		wantState(t, q, 4, 1)
		time.Sleep(10*time.Second + time.Millisecond)
		if q.mu.Lock(); q.extends[used.ID] != 10 {
			t.Errorf("extensions while Close waits: got %d, want 10", q.extends[used.ID])
		}
		q.mu.Unlock()
		if err := used.Ack(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil || time.Since(began) < 10*time.Second {
			t.Errorf("Close: got %v after %v, want nil when the message is settled", err, time.Since(began))
		}
		if err := s.Close(t.Context()); err != nil {
			t.Errorf("second Close: got %v, want nil", err)
		}
	})
}

// When the context of Close ends, messages in use are given back as well.
func TestSourceCloseForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(5)
		s := q.source(t, broker.SourceConfig{})
		s.Request(3)
		used := next(t, s)
		patient := make(chan error, 1)
		go func() { patient <- s.Close(t.Context()) }()
		closeIn(t, s, time.Second, context.DeadlineExceeded)
		wantState(t, q, 5, 0)
		if err := used.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
			t.Errorf("Ack after Close: got %v, want ErrSettled", err)
		}
		if err := <-patient; err != nil {
			t.Errorf("the other Close: got %v, want nil", err)
		}
	})
}

// Close during Fetch gives back the messages that arrive with its end.
func TestSourceCloseDuringFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(5)
		fetching := make(chan struct{})
		q.beforeFetch = func(ctx context.Context, _ int) error {
			close(fetching)
			<-ctx.Done()
			return nil
		}
		s := q.source(t, broker.SourceConfig{})
		s.Request(3)
		waiting := make(chan error, 1)
		go func() {
			_, err := s.Next(t.Context())
			waiting <- err
		}()
		<-fetching
		closeIn(t, s, time.Minute, nil)
		wantState(t, q, 5, 0)
		if got := q.settlements(); len(got) != 3 {
			t.Errorf("settlements: got %v, want three requeued", got)
		}
		if err := <-waiting; !errors.Is(err, io.EOF) {
			t.Errorf("Next: got %v, want io.EOF", err)
		}
	})
}

// A Fetch that does not return does not hold up Close, and loses nothing when it does.
func TestSourceCloseWhileFetchHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		release := make(chan struct{})
		q.beforeFetch = func(context.Context, int) error { <-release; return nil }
		s := q.source(t, broker.SourceConfig{})
		s.Request(2)
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Close(ctx)
		if err == nil || !strings.Contains(err.Error(), "Fetch has not returned") || time.Since(began) > 20*time.Second {
			t.Errorf("Close: got %v after %v, want an error about Fetch within 20s", err, time.Since(began))
		}
		if q.closed != 0 {
			t.Error("Fetcher.Close was called during Fetch")
		}
		close(release)
		time.Sleep(time.Minute)
		wantState(t, q, 2, 0)
		if q.closed != 1 {
			t.Errorf("Fetcher.Close: got %d calls, want 1", q.closed)
		}
	})
}

// While the broker is gone, Close tries to give back until its context ends.
func TestSourceCloseWithoutBroker(t *testing.T) {
	for name, c := range map[string]struct {
		back time.Duration // when the broker comes back
		hang bool          // calls hang instead of failing
		left int
		want error
	}{
		"comes back": {back: 30 * time.Second},
		"stays away": {back: time.Hour, left: 3, want: context.DeadlineExceeded},
		"hangs":      {back: time.Hour, hang: true, left: 3, want: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(3)
				began := time.Now()
				var gone atomic.Bool
				q.beforeSettle = func(ctx context.Context, _, _ string) error {
					if !gone.Load() || time.Since(began) > c.back {
						return nil
					}
					if c.hang {
						<-ctx.Done()
					}
					return errBroken
				}
				s := q.source(t, broker.SourceConfig{})
				s.Request(3)
				used := next(t, s)
				gone.Store(true)
				if c.left == 0 {
					go func() {
						time.Sleep(40 * time.Second)
						_ = used.Ack(t.Context())
					}()
				}
				closeIn(t, s, time.Minute, c.want)
				if _, left := q.state(); left != c.left {
					t.Errorf("left at the broker: got %d, want %d", left, c.left)
				}
				if err := used.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
					t.Errorf("Ack after Close: got %v, want ErrSettled", err)
				}
			})
		})
	}
}

// Messages may be settled while they wait in the buffer, as by Close.
func TestSourceCloseWithoutDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		s := q.source(t, broker.SourceConfig{})
		closeIn(t, s, time.Second, nil)
		if got := q.settlements(); !slices.Equal(got, nil) || q.closed != 1 {
			t.Errorf("settlements and closes: got %v and %d, want none and 1", got, q.closed)
		}
	})
}
