package batch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/broker/internal/batch"
)

// While the only sender is busy, entries gather. Each caller gets the error of its own entry,
// and an entry whose caller has left is not sent.
func TestEntriesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := errors.New("odd")
		var mu sync.Mutex // guards sent
		var sent [][]int
		b := &batch.Batcher[int]{Senders: 1, Most: 3, Time: time.Minute}
		b.Send = func(_ context.Context, entries []int) []error {
			mu.Lock()
			sent = append(sent, entries)
			mu.Unlock()
			time.Sleep(time.Second)
			errs := make([]error, len(entries))
			for i, n := range entries {
				if n%2 == 1 {
					errs[i] = odd
				}
			}
			return errs
		}
		var callers sync.WaitGroup
		for n := range 6 {
			callers.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				want := []error{nil, odd}[n%2]
				if n == 2 { // it leaves while it waits
					time.AfterFunc(time.Millisecond, cancel)
					want = context.Canceled
				}
				if err := b.Do(ctx, n); err != want {
					t.Errorf("entry %d: got %v, want %v", n, err, want)
				}
			})
			synctest.Wait()
		}
		callers.Wait()
		b.Wait()
		if want := [][]int{{0}, {1, 3}, {4, 5}}; !slices.EqualFunc(sent, want, slices.Equal) {
			t.Errorf("sent: got %v, want %v", sent, want)
		}
	})
}

// A Send has a bound, whatever its callers have.
func TestASendIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batch.Batcher[int]{Senders: 1, Most: 1, Time: time.Second}
		b.Send = func(ctx context.Context, _ []int) []error {
			<-ctx.Done()
			return []error{ctx.Err()}
		}
		begin := time.Now()
		if err := b.Do(t.Context(), 1); err != context.DeadlineExceeded || time.Since(begin) != time.Second {
			t.Errorf("got %v after %v, want context.DeadlineExceeded after 1s", err, time.Since(begin))
		}
	})
}
