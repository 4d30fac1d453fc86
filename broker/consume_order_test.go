package broker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/broker"
)

// Messages of a key run one after the other, in order, also when one of them fails or is
// refused. Keys do not wait for each other.
func TestConsumeOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(0)
		for i := range 60 {
			q.publish(broker.Message{ID: fmt.Sprint(i), Key: string(rune('a' + i%3))})
		}
		var mu sync.Mutex
		running := map[string]int{}
		var done []string
		tries := map[string]int{}
		var most atomic.Int64
		r := q.consume(t, func(_ context.Context, m *broker.Message) error {
			mu.Lock()
			running[m.Key]++
			if running[m.Key] > 1 {
				t.Errorf("key %s: got %d messages at a time, want 1", m.Key, running[m.Key])
			}
			all := 0
			for _, n := range running {
				all += n
			}
			most.Store(max(most.Load(), int64(all)))
			tries[m.ID]++
			first := tries[m.ID] == 1
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			running[m.Key]--
			switch {
			case m.ID == "9":
				return errBroken // always
			case first && m.ID == "13":
				return errBroken
			case first && m.ID == "20":
				return status.Error(codes.Unavailable, "")
			}
			done = append(done, m.Key+" "+m.ID)
			return nil
		}, broker.ConsumeConfig{Gate: fixed(t, 12), Ordered: true})
		time.Sleep(time.Minute)
		r.end(t)
		wantState(t, q, 0, 0)
		if len(done) != 59 || q.dead["9"] == "" || tries["9"] != 5 {
			t.Errorf("got %d consumed, dead letters %v after %d attempts, want 59 and message 9 after 5", len(done), q.dead, tries["9"])
		}
		for _, key := range []string{"a", "b", "c"} {
			last := -1
			for _, entry := range done {
				var k string
				var n int
				if _, err := fmt.Sscan(entry, &k, &n); err != nil {
					t.Fatal(err)
				}
				if k != key {
					continue
				}
				if n < last {
					t.Errorf("key %s: got %d after %d, want them in order", key, n, last)
				}
				last = n
			}
		}
		if most.Load() != 3 {
			t.Errorf("handlers at a time: got %d, want one for each of 3 keys", most.Load())
		}
		if got := q.settlements(); slices.ContainsFunc(got, func(s string) bool { return s[0] == 'r' }) {
			t.Errorf("settlements: got %v, want none requeued, which would change the order", got)
		}
	})
}

// A handler that ends its goroutine does not stop the messages behind it.
func TestConsumeOrderedGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(0)
		for i := range 5 {
			q.publish(broker.Message{ID: fmt.Sprint(i), Key: "k"})
		}
		r := q.consume(t, func(_ context.Context, m *broker.Message) error {
			if m.ID == "0" {
				goexit()
			}
			return nil
		}, broker.ConsumeConfig{Ordered: true, MaxAttempts: 2})
		time.Sleep(time.Minute)
		r.end(t)
		if got := q.settlements(); !slices.Equal(got, []string{"dead 0", "ack 1", "ack 2", "ack 3", "ack 4"}) {
			t.Errorf("settlements: got %v, want the first set aside and the others acknowledged", got)
		}
	})
}

// The end of Consume gives back the messages that wait for their key.
func TestConsumeOrderedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(0)
		for i := range 8 {
			q.publish(broker.Message{ID: fmt.Sprint(i), Key: "k"})
		}
		r := q.consume(t, func(context.Context, *broker.Message) error {
			time.Sleep(time.Second)
			return nil
		}, broker.ConsumeConfig{Gate: fixed(t, 4), Ordered: true})
		time.Sleep(100 * time.Millisecond)
		r.end(t)
		if got := q.settlements(); got[0] != "ack 0" && got[len(got)-1] != "ack 0" || len(got) != 4 {
			t.Errorf("settlements: got %v, want one acknowledged and three given back", got)
		}
		wantState(t, q, 7, 0)
	})
}

// Running handlers have the grace to end. Then their contexts end, and then Consume does
// not wait for them any more.
func TestConsumeGrace(t *testing.T) {
	for name, c := range map[string]struct {
		handler func(ctx context.Context, release <-chan struct{}) error
		took    time.Duration
		want    string
		fails   bool
	}{
		"in time":               {func(context.Context, <-chan struct{}) error { time.Sleep(4 * time.Second); return nil }, 3 * time.Second, "ack", false},
		"fails":                 {func(context.Context, <-chan struct{}) error { time.Sleep(4 * time.Second); return errBroken }, 3 * time.Second, "requeue", false},
		"context":               {func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return ctx.Err() }, 5 * time.Second, "requeue", false},
		"context, and succeeds": {func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return nil }, 5 * time.Second, "ack", false},
		"never":                 {func(_ context.Context, release <-chan struct{}) error { <-release; return nil }, 7 * time.Second, "requeue", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(1)
				q.publish(broker.Message{ID: "2"})
				release := make(chan struct{})
				var values atomic.Int64
				meter := broker.NewMeter("m")
				r := q.consume(t, func(ctx context.Context, _ *broker.Message) error {
					if _, has := ctx.Deadline(); has {
						values.Add(1)
					}
					return c.handler(ctx, release)
				}, broker.ConsumeConfig{Gate: fixed(t, 1), Grace: 5 * time.Second, Meter: meter})
				time.Sleep(time.Second)
				began := time.Now()
				r.stop()
				err := <-r.done
				if took := time.Since(began); took > c.took+100*time.Millisecond || took < c.took-100*time.Millisecond {
					t.Errorf("end: got it after %v, want %v", took, c.took)
				}
				if (err != nil) != c.fails {
					t.Errorf("Consume: got %v, want an error: %t", err, c.fails)
				}
				if got := q.settlements(); !slices.Equal(got, []string{c.want + " 1"}) {
					t.Errorf("settlements: got %v, want %s 1", got, c.want)
				}
				close(release)
				synctest.Wait()
				if s := meter.Stats(); s.Held != 0 || s.Running != 0 || s.Wanted != 0 || values.Load() != 0 {
					t.Errorf("stats: got %+v, want nothing left", s)
				}
			})
		})
	}
}

// The end of the source ends Consume.
func TestConsumeSourceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(3)
		s := q.source(t, broker.SourceConfig{})
		done := make(chan error, 1)
		go func() {
			done <- broker.Consume(context.Background(), s, func(context.Context, *broker.Message) error { return nil },
				broker.ConsumeConfig{Logger: quiet})
		}()
		time.Sleep(time.Second)
		closeIn(t, s, time.Second, nil)
		if err := <-done; err != nil {
			t.Errorf("Consume: got %v, want nil", err)
		}

		q = newQueue(3)
		q.beforeFetch = func(context.Context, int) error { return fmt.Errorf("gone: %w", broker.ErrPermanent) }
		if err := broker.Consume(context.Background(), q.source(t, broker.SourceConfig{}),
			func(context.Context, *broker.Message) error { return nil }, broker.ConsumeConfig{Logger: quiet}); err == nil || err.Error() != "gone: "+broker.ErrPermanent.Error() {
			t.Errorf("Consume: got %v, want the error of the source", err)
		}
		wantState(t, q, 3, 0)
	})
}

// A message that the broker takes away during a pause is not handled any more.
func TestConsumeLostDuringPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		q.beforeSettle = func(_ context.Context, what, id string) error {
			if what == "extend" && id == "1" {
				return broker.ErrSettled
			}
			return nil
		}
		var ran atomic.Int64
		meter := broker.NewMeter("m")
		r := q.consume(t, func(_ context.Context, m *broker.Message) error {
			if m.ID != "1" {
				return nil
			}
			ran.Add(1)
			return refused(codes.Unavailable, 10*time.Second)
		}, broker.ConsumeConfig{Meter: meter})
		time.Sleep(time.Minute)
		if s := meter.Stats(); ran.Load() != 1 || s.Held != 0 || s.Settled[broker.Lost] != 1 {
			t.Errorf("got %d attempts and %+v, want one, and the message lost", ran.Load(), s)
		}
		q.publish(broker.Message{ID: "2"})
		time.Sleep(time.Second)
		if s := meter.Stats(); s.Settled[broker.Acked] != 1 || s.Paused != 0 {
			t.Errorf("afterwards: got %+v, want the next message acknowledged, and no pause", s)
		}
		r.end(t)
	})
}
