package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/weirtest"
)

// A dependency records the calls of handlers, and refuses while it is down.
type dependency struct {
	began time.Time
	down  func(at time.Duration) error

	mu      sync.Mutex // guards the fields below
	at      []time.Duration
	ids     []string
	running int
	most    int // at a time while it is down
}

func (d *dependency) handle(_ context.Context, m *broker.Message) error {
	at := time.Since(d.began)
	err := d.down(at)
	d.mu.Lock()
	d.at = append(d.at, at)
	d.ids = append(d.ids, m.ID)
	d.running++
	if err != nil && len(d.at) > 10 {
		d.most = max(d.most, d.running)
	}
	d.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	d.mu.Lock()
	d.running--
	d.mu.Unlock()
	return err
}

// While the dependency refuses, one message tries after each delay that the server asked
// for. No attempt counts, nothing is given back, and all go on when it succeeds.
func TestConsumePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const up = 59 * time.Second
		q := newQueue(200)
		dep := &dependency{began: time.Now(), down: func(at time.Duration) error {
			if at < up {
				return refused(codes.Unavailable, 2*time.Second)
			}
			return nil
		}}
		meter := broker.NewMeter("m")
		var log bytes.Buffer
		r := q.consume(t, dep.handle, broker.ConsumeConfig{
			Gate: fixed(t, 10), MaxAttempts: 1, Meter: meter,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		time.Sleep(50 * time.Second)
		if s := meter.Stats(); s.Paused != 1 || s.Held > 10 || s.PausedSeconds < 49 || s.Refused < 30 ||
			s.Pauses != [broker.NumPauseCauses]uint64{1, 0} || status.Code(s.LastPause) != codes.Unavailable {
			t.Errorf("stats during the pause: got %+v, want one pause of some 50s, at most 10 held", s)
		}
		time.Sleep(14 * time.Second)
		q.wantAll(t, "ack", 200)
		r.end(t)
		if dep.most > 1 {
			t.Errorf("handlers at a time during the pause: got %d, want 1", dep.most)
		}
		for i, at := range dep.at {
			if i > 10 && at < up && (at-dep.at[i-1] < 2*time.Second || at-dep.at[i-1] > 2300*time.Millisecond) {
				t.Errorf("attempt %d: got it %v after the last, want 2s to 2.3s", i, at-dep.at[i-1])
			}
		}
		if s := meter.Stats(); s.Paused != 0 || s.Failed != 0 {
			t.Errorf("stats afterwards: got %+v, want no pause and no failure", s)
		}
		if text := log.String(); strings.Count(text, "consumption pauses") != 1 || strings.Count(text, "consumption goes on") != 1 {
			t.Errorf("log: got %s, want a line for the pause and one for its end", text)
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		for id, n := range q.extends {
			if n < 50 {
				t.Errorf("message %s: got %d extensions during the pause, want one a second", id, n)
			}
		}
	})
}

// Without a delay from the server pauses grow from 100 ms to MaxPause. Another message
// tries each time.
func TestConsumePausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(3)
		dep := &dependency{began: time.Now(), down: func(time.Duration) error { return status.Error(codes.Unavailable, "") }}
		r := q.consume(t, dep.handle, broker.ConsumeConfig{Gate: fixed(t, 3)})
		time.Sleep(5 * time.Minute)
		r.end(t)
		wantState(t, q, 3, 0)
		at := dep.at[2:] // the first three began together
		for i := 1; i < len(at); i++ {
			d, low := at[i]-at[i-1]-10*time.Millisecond, min(100*time.Millisecond<<(i-1), 20*time.Second)
			if d < low || d > min(low*3/2+time.Millisecond, 30*time.Second) {
				t.Errorf("pause %d: got %v, want %v and up to a half more, at most 30s", i, d, low)
			}
		}
		if len(at) < 15 {
			t.Errorf("attempts: got %d, want at least 15", len(at))
		}
		ids := dep.ids[3:]
		for i := 2; i < len(ids); i++ {
			if three := slices.Sorted(slices.Values(ids[i-2 : i+1])); len(slices.Compact(three)) != 3 {
				t.Errorf("attempts %d to %d: got messages %v, want each in its turn", i-2, i, ids[i-2:i+1])
			}
		}
	})
}

// A message that makes its dependency fail does not stop the others, and is not lost.
func TestConsumePoisonThatLooksLikeRefusal(t *testing.T) {
	for _, limit := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue(300)
			var poison atomic.Int64
			r := q.consume(t, func(_ context.Context, m *broker.Message) error {
				time.Sleep(10 * time.Millisecond)
				if m.ID == "7" {
					poison.Add(1)
					return status.Error(codes.Unavailable, "crashed")
				}
				return nil
			}, broker.ConsumeConfig{Gate: fixed(t, limit)})
			time.Sleep(20 * time.Second)
			if ready, unacked := q.state(); ready > 1 || ready+unacked != 1 {
				t.Errorf("limit %d, after 20s: got %d ready and %d unacked, want the poison alone", limit, ready, unacked)
			}
			if poison.Load() < 3 {
				t.Errorf("limit %d: got %d attempts of the poison, want some", limit, poison.Load())
			}
			r.end(t)
			wantState(t, q, 1, 0)
		})
	}
}

// When the gate refuses, consumption pauses, and nothing is lost.
func TestConsumePausesWhenGateRefuses(t *testing.T) {
	for _, why := range []admit.Reason{admit.QueueFull, admit.MemoryPressure, admit.OverShare, admit.OverQuota} {
		t.Run(why.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(50)
				gate, err := weirtest.NewGate(why, 20)
				if err != nil {
					t.Fatal(err)
				}
				meter := broker.NewMeter("m")
				r := q.consume(t, func(context.Context, *broker.Message) error { return nil },
					broker.ConsumeConfig{Gate: gate, Meter: meter})
				time.Sleep(2 * time.Minute)
				q.wantAll(t, "ack", 50)
				whole := why != admit.OverShare && why != admit.OverQuota
				if s := meter.Stats(); s.Refused != 20 || s.Paused != 0 || whole != (s.Pauses[broker.ByGate] > 0) {
					t.Errorf("stats: got %+v, want 20 refused, no pause now, and pauses: %t", s, whole)
				}
				r.end(t)
			})
		})
	}
}

// A message that should try and has used up the quota of its class lets another one try.
func TestConsumeTrialWithoutQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		gate := fixed(t, 2, admit.WithQuotas(admit.QuotaConfig{
			Classes: map[admit.Class]admit.Rate{admit.Background: {PerSecond: 0.01, Burst: 1}},
		}))
		began := time.Now()
		r := q.consume(t, func(context.Context, *broker.Message) error {
			if time.Since(began) < 3*time.Second {
				return refused(codes.Unavailable, time.Second)
			}
			return nil
		}, broker.ConsumeConfig{Gate: gate, Call: func(m *broker.Message) admit.Call {
			if m.ID == "1" {
				return admit.Call{Class: admit.Background}
			}
			return admit.Call{}
		}})
		time.Sleep(30 * time.Second)
		if got := q.settlements(); !slices.Equal(got, []string{"ack 2"}) {
			t.Errorf("settlements: got %v, want ack 2 while message 1 waits for its quota", got)
		}
		r.end(t)
		wantState(t, q, 1, 0)
	})
}

func TestConsumeGateDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(5)
		gate := fixed(t, 2)
		gate.Drain()
		r := q.consume(t, func(context.Context, *broker.Message) error { return nil }, broker.ConsumeConfig{Gate: gate})
		time.Sleep(10 * time.Second)
		if ready, unacked := q.state(); ready+unacked != 5 || unacked > 2 {
			t.Errorf("broker: got %d ready and %d unacked, want none lost and at most 2 unacked", ready, unacked)
		}
		r.end(t)
		wantState(t, q, 5, 0)
	})
}

// Consumption that ends during a pause gives back its messages.
func TestConsumeEndsDuringPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(5)
		meter := broker.NewMeter("m")
		r := q.consume(t, func(context.Context, *broker.Message) error { return refused(codes.ResourceExhausted, time.Hour) },
			broker.ConsumeConfig{Gate: fixed(t, 3), Meter: meter})
		time.Sleep(time.Minute)
		began := time.Now()
		r.end(t)
		wantState(t, q, 5, 0)
		if took := time.Since(began); took > time.Second {
			t.Errorf("end: got it after %v, want it at once", took)
		}
		if s := meter.Stats(); s.Paused != 0 {
			t.Errorf("paused: got %d, want 0", s.Paused)
		}
	})
}

// The outcomes of handlers teach the limit, except while one message tries.
func TestConsumeOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want admit.Outcome
	}{
		"nil":               {nil, admit.Success},
		"plain":             {errBroken, admit.Ignored},
		"rejected":          {broker.Reject(errBroken), admit.Ignored},
		"UNAVAILABLE":       {status.Error(codes.Unavailable, ""), admit.Overload},
		"a server's gate":   {weirtest.Error(admit.QueueFull, "g"), admit.Overload},
		"no connection":     {status.Error(codes.Unavailable, "connection error: desc = x"), admit.Ignored},
		"a gate of ours":    {&admit.Refusal{}, admit.Ignored},
		"a circuit of ours": {opened(t), admit.Ignored},
		"a deadline":        {context.DeadlineExceeded, admit.Overload},
		"DEADLINE_EXCEEDED": {fmt.Errorf("x: %w", status.Error(codes.DeadlineExceeded, "")), admit.Overload},
		"INVALID_ARGUMENT":  {status.Error(codes.InvalidArgument, ""), admit.Ignored},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(1)
				gate := fixed(t, 1)
				r := q.consume(t, func(context.Context, *broker.Message) error { return c.err },
					broker.ConsumeConfig{Gate: gate, RetryDelay: time.Hour, MaxPause: time.Hour})
				time.Sleep(50 * time.Millisecond)
				var want [admit.NumOutcomes]uint64
				want[c.want] = 1
				if got := gate.Stats().Ended; got != want {
					t.Errorf("outcomes: got %v, want %v", got, want)
				}
				time.Sleep(30 * time.Second)
				if got := gate.Stats().Ended; got[admit.Overload] != want[admit.Overload] {
					t.Errorf("outcomes while messages try: got %v, want no more overload", got)
				}
				r.end(t)
			})
		})
	}
}
