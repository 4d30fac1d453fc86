package broker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/limit"
)

// The demand follows a limit that Update changes, down to one message and up to five hundred.
// Messages that were fetched under a higher limit are handled first.
func TestConsumeFollowsUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 100 * time.Millisecond
		m := brokertest.NewMemory(brokertest.MemoryConfig{})
		m.Publish(make([]broker.Message, 30000)...)
		gate := fixed(t, 20)
		var running, most atomic.Int64
		end := consuming(t, m, gate, func(context.Context, *broker.Message) error {
			n := running.Add(1)
			defer running.Add(-1)
			for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
				continue
			}
			time.Sleep(each)
			return nil
		})
		for _, n := range []int{20, 1, 500, 50} {
			update(t, gate, n)
			time.Sleep(3 * time.Second) // until the messages of a higher limit are done
			most.Store(0)
			before := m.Counts()
			time.Sleep(time.Second)
			after := m.Counts()
			if got := most.Load(); got > int64(n) {
				t.Errorf("limit %d: %d handlers ran at the same time", n, got)
			}
			if after.Unacked > n {
				t.Errorf("limit %d: the broker counts %d unacknowledged messages, want at most as many", n, after.Unacked)
			}
			if got, want := before.Ready+before.Unacked-after.Ready-after.Unacked, 8*n; got < want {
				t.Errorf("limit %d: %d messages were consumed in a second, want at least %d", n, got, want)
			}
		}
		end()
	})
}

// During a long pause the source fetches nothing, and no handler runs. The messages that were
// fetched before are given back at the end.
func TestConsumePausedFetchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		m := brokertest.NewMemory(brokertest.MemoryConfig{})
		m.Publish(make([]broker.Message, n)...)
		var calls atomic.Int64
		end := consuming(t, m, fixed(t, 10), func(context.Context, *broker.Message) error {
			calls.Add(1)
			return &admit.Refusal{RetryAfter: time.Hour}
		})
		time.Sleep(time.Second)
		called, fetched := calls.Load(), m.Fetches()
		time.Sleep(30 * time.Minute)
		if got := m.Fetches() - fetched; got != 0 {
			t.Errorf("fetches during a pause = %d, want 0", got)
		}
		if got := calls.Load() - called; got != 0 {
			t.Errorf("handlers during a pause = %d, want 0", got)
		}
		if got := m.Counts().Unacked; got > 10 {
			t.Errorf("unacknowledged messages during a pause = %d, want at most the 10 that the gate has room for", got)
		}
		end()
		if got := m.Counts(); got.Ready != n || got.Unacked != 0 {
			t.Errorf("at the end the broker counts %+v, want %d ready", got, n)
		}
	})
}

// consuming consumes in the background until the function that it returns is called.
func consuming(t *testing.T, m *brokertest.Memory, gate *admit.Gate, handle broker.Handler) (end func()) {
	t.Helper()
	source, err := broker.NewSource(m.Fetcher(), broker.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- broker.Consume(ctx, source, handle, broker.ConsumeConfig{Gate: gate}) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Consume: %v, want no error", err)
		}
	}
}

func update(t *testing.T, gate *admit.Gate, n int) {
	t.Helper()
	l, err := limit.NewFixed(n)
	if err == nil {
		err = gate.Update(admit.WithLimit(l))
	}
	if err != nil {
		t.Fatal(err)
	}
}
