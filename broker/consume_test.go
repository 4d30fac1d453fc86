package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
)

// fixed returns a gate with a fixed limit.
func fixed(t *testing.T, n int, opts ...admit.Option) *admit.Gate {
	t.Helper()
	g, err := admit.New(append(opts, admit.WithFixedLimit(n))...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A run is a Consume that runs.
type run struct {
	stop context.CancelFunc
	done chan error
}

// consume starts Consume for a queue.
func (q *queue) consume(t *testing.T, h broker.Handler, c broker.ConsumeConfig) *run {
	t.Helper()
	if c.Logger == nil {
		c.Logger = quiet
	}
	s := q.source(t, broker.SourceConfig{ExtendEvery: time.Second, Meter: c.Meter})
	ctx, stop := context.WithCancel(context.Background())
	r := &run{stop: stop, done: make(chan error, 1)}
	go func() { r.done <- broker.Consume(ctx, s, h, c) }()
	return r
}

// end stops Consume, and wants nil.
func (r *run) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Consume: got %v, want nil", err)
	}
}

func (q *queue) wantAll(t *testing.T, what string, n int) {
	t.Helper()
	all := q.settlements()
	of := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, what) })
	slices.Sort(of)
	if len(of) != n || len(slices.Compact(slices.Clone(of))) != n || len(all) != n {
		t.Errorf("settlements: got %v, want %s once for each of %d messages", all, what, n)
	}
}

func TestConsumeChecks(t *testing.T) {
	q := newQueue(0)
	s := q.source(t, broker.SourceConfig{})
	h := func(context.Context, *broker.Message) error { return nil }
	wantConfig(t, "source", broker.Consume(t.Context(), nil, h, broker.ConsumeConfig{}), "source: got nil, want a Source")
	wantConfig(t, "handler", broker.Consume(t.Context(), s, nil, broker.ConsumeConfig{}), "handler: got nil, want a function")
	wantConfig(t, "gate", broker.Consume(t.Context(), s, h, broker.ConsumeConfig{Gate: &admit.Gate{}}),
		"ConsumeConfig: Gate: got a zero Gate, want one from admit.New")
	wantConfig(t, "numbers", broker.Consume(t.Context(), s, h, broker.ConsumeConfig{MaxAttempts: -1, RetryDelay: -1, MaxPause: -1, Grace: -1}),
		"ConsumeConfig: MaxAttempts: got -1, want more than 0, or 0 for 5",
		"ConsumeConfig: RetryDelay: got -1ns, want more than 0, or 0 for 100ms",
		"ConsumeConfig: MaxPause: got -1ns, want more than 0, or 0 for 30s",
		"ConsumeConfig: Grace: got -1ns, want more than 0, or 0 for 10s")
	closeIn(t, s, time.Second, nil)
}

func TestConsumeAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		meter := broker.NewMeter("m")
		r := q.consume(t, func(context.Context, *broker.Message) error {
			time.Sleep(time.Millisecond)
			return nil
		}, broker.ConsumeConfig{Meter: meter})
		time.Sleep(time.Second)
		q.wantAll(t, "ack", 100)
		r.end(t)
		wantState(t, q, 0, 0)
		s := meter.Stats()
		if s.Fetched != 100 || s.Settled[broker.Acked] != 100 || s.Held != 0 || s.Wanted != 0 || s.Running != 0 {
			t.Errorf("stats: got %+v, want 100 fetched and acked, and none left", s)
		}
	})
}

// The demand is the room of the gate. An idle queue holds no permit and polls nothing.
func TestConsumeDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4
		q := newQueue(0)
		gate := fixed(t, limit)
		release := make(chan struct{})
		r := q.consume(t, func(context.Context, *broker.Message) error { <-release; return nil }, broker.ConsumeConfig{Gate: gate})
		time.Sleep(time.Hour)
		if got := q.fetched(); !slices.Equal(got, []int{limit}) || gate.InFlight() != 0 {
			t.Errorf("idle for an hour: got fetches %v and %d permits, want one fetch of %d and none", got, gate.InFlight(), limit)
		}
		for i := range 20 {
			q.publish(broker.Message{ID: fmt.Sprint(i)})
		}
		time.Sleep(time.Minute)
		wantState(t, q, 16, limit)
		if gate.InFlight() != limit {
			t.Errorf("permits: got %d, want %d", gate.InFlight(), limit)
		}
		if err := gate.Update(admit.WithFixedLimit(2)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			release <- struct{}{}
		}
		time.Sleep(time.Minute)
		wantState(t, q, 16, 2) // no new ones until the limit has room
		release <- struct{}{}
		time.Sleep(time.Minute)
		wantState(t, q, 15, 2)
		if err := gate.Update(admit.WithFixedLimit(6)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // without an event of its own
		wantState(t, q, 11, 6)
		close(release)
		time.Sleep(time.Minute)
		r.end(t)
		wantState(t, q, 0, 0)
	})
}

// Other users of the gate leave less room, but at least one message is asked for.
func TestConsumeSharesGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(20)
		gate := fixed(t, 6)
		var others []*admit.Permit
		for range 4 {
			p, err := gate.Acquire(t.Context(), admit.Call{})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, &p)
		}
		release := make(chan struct{})
		r := q.consume(t, func(context.Context, *broker.Message) error { <-release; return nil }, broker.ConsumeConfig{Gate: gate})
		time.Sleep(time.Minute)
		wantState(t, q, 18, 2)
		for _, p := range others {
			p.Release(admit.Ignored)
		}
		time.Sleep(time.Second)
		wantState(t, q, 14, 6)
		close(release)
		time.Sleep(time.Second)
		r.end(t)
		q.wantAll(t, "ack", 20)
	})
}

// Costs bound the demand too.
func TestConsumeCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(400)
		gate := fixed(t, 12)
		var running, most atomic.Int64
		r := q.consume(t, func(context.Context, *broker.Message) error {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(10 * time.Millisecond)
			running.Add(-1)
			return nil
		}, broker.ConsumeConfig{Gate: gate, Call: func(*broker.Message) admit.Call { return admit.Call{Cost: 4} }})
		time.Sleep(20 * time.Second)
		q.wantAll(t, "ack", 400)
		if most.Load() != 3 {
			t.Errorf("handlers at a time: got %d, want 3", most.Load())
		}
		for i := range 20 {
			q.publish(broker.Message{ID: "more" + fmt.Sprint(i)})
		}
		time.Sleep(5 * time.Millisecond)
		if _, unacked := q.state(); unacked > 4 {
			t.Errorf("unacked: got %d, want the 3 that run, and the one that may come early", unacked)
		}
		time.Sleep(time.Second)
		r.end(t)
	})
}

// The next message is requested before the last is settled, but hanging settlements do
// not add up.
func TestConsumeHangingSettlements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(50)
		q.beforeSettle = func(ctx context.Context, what, _ string) error {
			if what == "ack" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		var ran atomic.Int64
		r := q.consume(t, func(context.Context, *broker.Message) error { ran.Add(1); return nil },
			broker.ConsumeConfig{Gate: fixed(t, 3)})
		time.Sleep(5 * time.Minute)
		wantState(t, q, 44, 6)
		if ran.Load() != 6 {
			t.Errorf("handlers: got %d, want each message handled once", ran.Load())
		}
		r.stop()
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), "6 settlements") {
			t.Errorf("Consume: got %v, want an error about 6 settlements", err)
		}
		wantState(t, q, 50, 0)
	})
}

func TestConsumeFailures(t *testing.T) {
	for name, c := range map[string]struct {
		uncounted, nameless bool
		cfg                 broker.ConsumeConfig
		fail                func() error
		want                string
		reason              string
		panics              uint64
	}{
		"counted":   {fail: func() error { return errBroken }, want: "requeue*4 dead", reason: "broken"},
		"uncounted": {uncounted: true, fail: func() error { return errBroken }, want: "requeue*4 dead", reason: "broken"},
		"nameless":  {uncounted: true, nameless: true, fail: func() error { return errBroken }, want: "dead", reason: "broken"},
		"ordered":   {cfg: broker.ConsumeConfig{Ordered: true}, fail: func() error { return errBroken }, want: "dead", reason: "broken"},
		"three":     {cfg: broker.ConsumeConfig{MaxAttempts: 3}, fail: func() error { return errBroken }, want: "requeue*2 dead", reason: "broken"},
		"reject":    {fail: func() error { return fmt.Errorf("x: %w", broker.Reject(errBroken)) }, want: "dead", reason: "x: broken"},
		"panic": {
			fail: func() error { panic("oh") }, want: "requeue*4 dead",
			reason: "broker: the handler panicked: oh", panics: 5,
		},
		"goexit": {
			fail: func() error { goexit(); return nil }, want: "requeue*4 dead",
			reason: "broker: the handler called runtime.Goexit", panics: 5,
		},
		"call panics": {
			cfg:  broker.ConsumeConfig{Call: func(*broker.Message) admit.Call { panic("oh") }},
			want: "requeue*4 dead", reason: "broker: the handler panicked: oh", panics: 5,
		},
		"classifier panics": {
			cfg:  broker.ConsumeConfig{FailureOf: func(error) broker.Failure { panic("oh") }},
			fail: func() error { return errBroken }, want: "requeue*4 dead", reason: "broken",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(0)
				q.uncounted = c.uncounted
				id := "1"
				if c.nameless {
					id = ""
				}
				q.publish(broker.Message{ID: id, Key: "k"})
				q.publish(broker.Message{ID: "good"})
				var attempts, reports atomic.Int64
				cfg := c.cfg
				cfg.Meter = broker.NewMeter("m")
				cfg.OnError = func(*broker.Message, error) { reports.Add(1); panic("in the hook") }
				if cfg.Call == nil {
					cfg.Call = func(*broker.Message) admit.Call { return admit.Call{} }
				}
				gate := fixed(t, 2)
				cfg.Gate = gate
				r := q.consume(t, func(_ context.Context, m *broker.Message) error {
					if m.ID == "good" {
						return nil
					}
					attempts.Add(1)
					return c.fail()
				}, cfg)
				time.Sleep(time.Minute)
				r.end(t)
				var got []string
				for _, s := range q.settlements() {
					if what, settled, _ := strings.Cut(s, " "); settled == id {
						got = append(got, what)
					}
				}
				if counted(got) != c.want || q.dead[id] != c.reason {
					t.Errorf("settlements: got %v because of %q, want %s because of %q", got, q.dead[id], c.want, c.reason)
				}
				stats := cfg.Meter.Stats()
				want := max(uint64(attempts.Load()), c.panics)
				if name == "call panics" {
					want = 10 // the good message too
				}
				if stats.Failed != want || reports.Load() < int64(want) || stats.Panics < c.panics {
					t.Errorf("stats: got %d failed, %d reported, %d panics, want %d, as many and %d",
						stats.Failed, reports.Load(), stats.Panics, want, c.panics)
				}
				if gate.InFlight() != 0 {
					t.Errorf("permits: got %d, want none", gate.InFlight())
				}
			})
		})
	}
}

// counted writes settlements of a message as "requeue*4 dead".
func counted(all []string) string {
	last := len(all) - 1
	if last < 1 {
		return strings.Join(all, " ")
	}
	for _, s := range all[:last] {
		if s != all[0] {
			return strings.Join(all, " ")
		}
	}
	return fmt.Sprintf("%s*%d %s", all[0], last, all[last])
}

// Attempts have growing delays between them.
func TestConsumeRetryDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		var mu sync.Mutex
		var at []time.Time
		r := q.consume(t, func(context.Context, *broker.Message) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			return errBroken
		}, broker.ConsumeConfig{MaxAttempts: 4, RetryDelay: time.Second})
		time.Sleep(time.Minute)
		r.end(t)
		for i := range 3 {
			if d, low := at[i+1].Sub(at[i]), time.Second<<i; d < low || d > low*3/2 {
				t.Errorf("delay %d: got %v, want %v and up to a half more", i, d, low)
			}
		}
	})
}

// A message that cannot be set aside does not take a place for ever.
func TestConsumeWithoutDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		var tries atomic.Int64
		q.beforeSettle = func(_ context.Context, what, _ string) error {
			if what == "dead" {
				tries.Add(1)
				return errBroken
			}
			return nil
		}
		r := q.consume(t, func(context.Context, *broker.Message) error { return broker.Reject(errBroken) },
			broker.ConsumeConfig{Gate: fixed(t, 1)})
		time.Sleep(10 * time.Second)
		if got := q.settlements(); len(got) == 0 || tries.Load() < 3 {
			t.Errorf("settlements: got %v after %d tries, want it given back", got, tries.Load())
		}
		r.end(t)
		wantState(t, q, 1, 0)
	})
}

// A settlement that fails is repeated.
func TestConsumeRepeatsSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		var tries, ran atomic.Int64
		q.beforeSettle = func(context.Context, string, string) error {
			if tries.Add(1) < 4 {
				return errBroken
			}
			return nil
		}
		r := q.consume(t, func(context.Context, *broker.Message) error { ran.Add(1); return nil }, broker.ConsumeConfig{})
		time.Sleep(time.Minute)
		q.wantAll(t, "ack", 1)
		if ran.Load() != 1 {
			t.Errorf("attempts: got %d, want 1", ran.Load())
		}
		r.end(t)
	})
}

// A handler may settle its message itself.
func TestConsumeHandlerSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(3)
		r := q.consume(t, func(ctx context.Context, m *broker.Message) error {
			return m.Nack(ctx, broker.DeadLetter("seen"))
		}, broker.ConsumeConfig{})
		time.Sleep(time.Second)
		r.end(t)
		q.wantAll(t, "dead", 3)
	})
}
