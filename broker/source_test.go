package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/broker"
)

// wantConfig checks that err wraps ErrConfig and names these mistakes.
func wantConfig(t *testing.T, name string, err error, mistakes ...string) {
	t.Helper()
	want := broker.ErrConfig.Error() + ": " + strings.Join(mistakes, "\n")
	if !errors.Is(err, broker.ErrConfig) || err.Error() != want {
		t.Errorf("%s: got %v, want ErrConfig with the text %q", name, err, want)
	}
}

func TestNewSourceChecks(t *testing.T) {
	_, err := broker.NewSource(nil, broker.SourceConfig{ExtendEvery: -1, MaxHold: -1})
	wantConfig(t, "NewSource", err, "f: got nil, want a Fetcher",
		"SourceConfig: ExtendEvery: got -1ns, want at least 10ms, or 0 for none",
		"SourceConfig: MaxHold: got -1ns, want more than 0, or 0 for 1h0m0s")
	wantConfig(t, "Validate", broker.SourceConfig{ExtendEvery: time.Millisecond}.Validate(),
		"ExtendEvery: got 1ms, want at least 10ms, or 0 for none")
}

// A source fetches nothing without demand, and exactly the demand.
func TestSourceFetchesByDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		s := q.source(t, broker.SourceConfig{})
		time.Sleep(time.Hour)
		if got := q.fetched(); got != nil {
			t.Errorf("fetches without demand: got %v, want none", got)
		}
		s.Request(0)
		s.Request(-5)
		s.Request(3)
		synctest.Wait()
		wantState(t, q, 97, 3)
		held := []*broker.Message{next(t, s), next(t, s), next(t, s)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if m, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next beyond the demand: got %v and %v, want the deadline's error", m, err)
		}
		cancel()
		s.Request(2)
		synctest.Wait()
		wantState(t, q, 95, 5)
		for _, m := range held {
			if err := m.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		wantState(t, q, 95, 2) // a settled message does not come back as demand
		if got := q.fetched(); !slices.Equal(got, []int{3, 2}) {
			t.Errorf("fetches: got %v, want 3 and 2", got)
		}
		closeIn(t, s, time.Second, nil)
		wantState(t, q, 97, 0)
		if q.closed != 1 {
			t.Errorf("Fetcher.Close: got %d calls, want 1", q.closed)
		}
		if _, err := s.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("Next after Close: got %v, want io.EOF", err)
		}
		s.Request(1)
	})
}

// Demand that grows while Fetch waits is fetched next.
func TestSourceDemandDuringFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(0)
		s := q.source(t, broker.SourceConfig{})
		s.Request(1)
		synctest.Wait()
		s.Request(4)
		s.Request(5)
		for i := range 20 {
			q.publish(broker.Message{ID: fmt.Sprint(i)})
		}
		synctest.Wait()
		wantState(t, q, 10, 10)
		closeIn(t, s, time.Second, nil)
		wantState(t, q, 20, 0)
	})
}

func TestSourceHugeDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		s := q.source(t, broker.SourceConfig{})
		for range 10 {
			s.Request(int(^uint(0) >> 1))
		}
		if err := next(t, s).Ack(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for _, n := range q.fetched() {
			if n < 1 {
				t.Errorf("Fetch: got n = %d, want it positive", n)
			}
		}
		closeIn(t, s, time.Second, nil)
	})
}

// A message that Next does not return because its context ended is returned later.
func TestSourceNextLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		q := newQueue(0)
		s := q.source(t, broker.SourceConfig{})
		s.Request(n)
		var got atomic.Int64
		var readers sync.WaitGroup
		for i := range 20 {
			readers.Go(func() {
				for got.Load() < n {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Millisecond)
					m, err := s.Next(ctx)
					cancel()
					if err == nil {
						got.Add(1)
						_ = m.Ack(t.Context())
					}
				}
			})
		}
		for i := range n {
			q.publish(broker.Message{ID: fmt.Sprint(i)})
			time.Sleep(time.Millisecond)
		}
		readers.Wait()
		wantState(t, q, 0, 0)
		closeIn(t, s, time.Second, nil)
	})
}

// Errors are followed by delays from 100 ms to 10 s that grow, and reported. Panics too.
func TestSourceDelaysAfterErrors(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errBroken },
		"panic": func() error { panic("oh") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Duration
				began := time.Now()
				q := newQueue(1)
				q.beforeFetch = func(context.Context, int) error {
					at = append(at, time.Since(began))
					if len(at) > 12 {
						return nil
					}
					return fail()
				}
				var reports atomic.Int64
				s := q.source(t, broker.SourceConfig{OnError: func(error) { reports.Add(1); panic("in the hook") }})
				s.Request(1)
				m := next(t, s)
				if got := reports.Load(); got != 12 {
					t.Errorf("reports: got %d, want 12", got)
				}
				for i := 1; i < len(at); i++ {
					d, low := at[i]-at[i-1], min(100*time.Millisecond<<(i-1), 6*time.Second)
					if d < low || d > 10*time.Second || d > low*2 {
						t.Errorf("delay %d: got %v, want %v to %v, at most 10s", i, d, low, 2*low)
					}
				}
				_ = m.Ack(t.Context())
				closeIn(t, s, time.Second, nil)
			})
		})
	}
}

// A Fetch that returns nothing without waiting does not become a busy loop.
func TestSourceQuickEmptyFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &emptyFetcher{}
		s, err := broker.NewSource(f, broker.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s.Request(10)
		time.Sleep(time.Minute)
		if got := f.calls.Load(); got < 60 || got > 120 {
			t.Errorf("fetches in a minute: got %d, want about one a second", got)
		}
		closeIn(t, s, time.Second, nil)
	})
}

type emptyFetcher struct {
	calls  atomic.Int64
	closed error
}

func (f *emptyFetcher) Fetch(context.Context, int) ([]*broker.Message, error) {
	f.calls.Add(1)
	return nil, nil
}
func (f *emptyFetcher) Close(context.Context) error { return f.closed }

func TestSourceClosesFetcher(t *testing.T) {
	s, err := broker.NewSource(&emptyFetcher{closed: errBroken}, broker.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	closeIn(t, s, time.Minute, errBroken)
}

func TestSourcePermanentError(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error":  func() error { return fmt.Errorf("%w: %w", errBroken, broker.ErrPermanent) },
		"goexit": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(3)
				var calls int
				q.beforeFetch = func(context.Context, int) error {
					if calls++; calls < 2 {
						return nil
					}
					if fail == nil {
						goexit()
					}
					return fail()
				}
				s := q.source(t, broker.SourceConfig{})
				s.Request(2)
				synctest.Wait()
				s.Request(2)
				synctest.Wait()
				for range 2 { // what was fetched before comes first
					if err := next(t, s).Ack(t.Context()); err != nil {
						t.Error(err)
					}
				}
				for range 2 {
					if _, err := s.Next(t.Context()); !errors.Is(err, broker.ErrPermanent) {
						t.Errorf("Next: got %v, want ErrPermanent", err)
					}
				}
				closeIn(t, s, time.Second, nil)
			})
		})
	}
}

// A Fetcher that returns more than was asked for loses nothing, and exceeds nothing.
func TestSourceGivesBackSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(10)
		q.over = 3
		var fails atomic.Int64
		q.beforeSettle = func(_ context.Context, what, _ string) error {
			if what == "requeue" && fails.Add(1) < 5 {
				return errBroken
			}
			return nil
		}
		var reports atomic.Int64
		s := q.source(t, broker.SourceConfig{OnError: func(error) { reports.Add(1) }})
		s.Request(2)
		time.Sleep(time.Minute)
		wantState(t, q, 8, 2)
		if reports.Load() != 5 {
			t.Errorf("reports: got %d, want 4 failures and the surplus", reports.Load())
		}
		_ = next(t, s).Ack(t.Context())
		_ = next(t, s).Ack(t.Context())
		time.Sleep(time.Minute)
		wantState(t, q, 8, 0)
		closeIn(t, s, time.Second, nil)
	})
}

// wrongFetcher returns what no Fetcher should.
type wrongFetcher struct {
	settler
	once sync.Once
}

func (f *wrongFetcher) Fetch(ctx context.Context, _ int) (messages []*broker.Message, err error) {
	f.once.Do(func() {
		good, done := broker.NewMessage(broker.Message{ID: "good"}, f), broker.NewMessage(broker.Message{ID: "done"}, f)
		_ = done.Ack(ctx)
		messages = []*broker.Message{nil, good, {ID: "raw"}, good, done}
	})
	if messages == nil {
		<-ctx.Done()
	}
	return messages, nil
}
func (*wrongFetcher) Close(context.Context) error { return nil }

func TestSourceWrongMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &wrongFetcher{}
		var reports atomic.Int64
		s, err := broker.NewSource(f, broker.SourceConfig{OnError: func(error) { reports.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		s.Request(10)
		if got := next(t, s); got.ID != "good" {
			t.Errorf("Next: got %q, want the good message", got.ID)
		} else if err := got.Ack(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if reports.Load() != 4 {
			t.Errorf("reports: got %d, want 4", reports.Load())
		}
		closeIn(t, s, time.Second, nil)
	})
}

// Messages are extended from their receipt until they are settled, or until MaxHold.
func TestSourceExtends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		var fails atomic.Int64
		q.beforeSettle = func(_ context.Context, what, id string) error {
			if what == "extend" && id == "2" && fails.Add(1) == 1 {
				return errBroken
			}
			return nil
		}
		var reports atomic.Int64
		s := q.source(t, broker.SourceConfig{
			ExtendEvery: 20 * time.Second, MaxHold: time.Minute + 30*time.Second,
			OnError: func(error) { reports.Add(1) },
		})
		s.Request(2)
		time.Sleep(50 * time.Second) // in the buffer
		one, two := next(t, s), next(t, s)
		_ = one.Ack(t.Context())
		time.Sleep(time.Hour)
		q.mu.Lock()
		if q.extends["1"] != 2 {
			t.Errorf("extensions of a message held for 50s: got %d, want 2", q.extends["1"])
		}
		if q.extends["2"] != 4 || reports.Load() != 1 { // at 25, 45, 65, 85 s
			t.Errorf("extensions of a message held for ever: got %d and %d failures, want 4 and 1", q.extends["2"], reports.Load())
		}
		q.mu.Unlock()
		if err := two.Ack(t.Context()); err != nil {
			t.Error(err)
		}
		closeIn(t, s, time.Second, nil)
	})
}

// An extension that waits for a settlement says so, with the source and the message.
func TestSourceExtendsDuringSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		q.beforeSettle = func(ctx context.Context, what, _ string) error {
			if what == "ack" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		reports := make(chan error, 100)
		s := q.source(t, broker.SourceConfig{
			Name: "payments", ExtendEvery: time.Second, OnError: func(err error) { reports <- err },
		})
		s.Request(1)
		m := next(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_ = m.Ack(ctx)
		select {
		case err := <-reports:
			for _, want := range []string{`"payments"`, `"1"`, "no answer yet"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("report: got %v, want it to say %s", err, want)
				}
			}
		default:
			t.Error("no error was reported, want that of an extension")
		}
		if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
			t.Error(err)
		}
		closeIn(t, s, time.Second, nil)
	})
}

// A message that the broker took away frees its place in the demand.
func TestSourceLostMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		q.beforeSettle = func(_ context.Context, what, id string) error {
			if what == "extend" && id == "1" {
				return broker.ErrSettled
			}
			return nil
		}
		s := q.source(t, broker.SourceConfig{ExtendEvery: time.Second})
		s.Request(1)
		one := next(t, s)
		time.Sleep(2 * time.Second)
		if err := one.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
			t.Errorf("Ack: got %v, want ErrSettled", err)
		}
		s.Request(1)
		_ = next(t, s).Ack(t.Context())
		closeIn(t, s, time.Second, nil)
	})
}
