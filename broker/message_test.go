package broker_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/weir-go/weir/broker"
)

// settler counts the calls that succeed, and fails as often as it is told.
type settler struct {
	mu      sync.Mutex
	fail    []error
	calls   []string
	block   chan struct{}
	running int
	most    int
}

func (s *settler) did(ctx context.Context, what string) error {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	s.mu.Unlock()
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(s.fail) > 0 {
		err := s.fail[0]
		s.fail = s.fail[1:]
		return err
	}
	s.calls = append(s.calls, what)
	return nil
}

func (s *settler) Ack(ctx context.Context) error                    { return s.did(ctx, "ack") }
func (s *settler) Requeue(ctx context.Context) error                { return s.did(ctx, "requeue") }
func (s *settler) DeadLetter(ctx context.Context, why string) error { return s.did(ctx, "dead "+why) }
func (s *settler) Extend(ctx context.Context) error                 { return s.did(ctx, "extend") }

func TestMessageIsSettledOnce(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		settle func(*broker.Message) error
		want   string
	}{
		"ack":         {func(m *broker.Message) error { return m.Ack(ctx) }, "ack"},
		"requeue":     {func(m *broker.Message) error { return m.Nack(ctx, broker.Requeue()) }, "requeue"},
		"zero":        {func(m *broker.Message) error { return m.Nack(ctx, broker.Disposition{}) }, "requeue"},
		"dead letter": {func(m *broker.Message) error { return m.Nack(ctx, broker.DeadLetter("bad")) }, "dead bad"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &settler{}
			m := broker.NewMessage(broker.Message{ID: "1"}, s)
			if err := m.Extend(ctx); err != nil {
				t.Errorf("Extend: got %v, want nil", err)
			}
			if err := c.settle(m); err != nil {
				t.Errorf("first settlement: got %v, want nil", err)
			}
			again := *m // shares the settlement
			for _, err := range []error{again.Ack(ctx), m.Nack(ctx, broker.Requeue()), m.Nack(ctx, broker.DeadLetter("")), m.Extend(ctx)} {
				if !errors.Is(err, broker.ErrSettled) {
					t.Errorf("after the settlement: got %v, want ErrSettled", err)
				}
			}
			if got := strings.Join(s.calls, ","); got != "extend,"+c.want {
				t.Errorf("calls: got %s, want extend,%s", got, c.want)
			}
		})
	}
}

func TestMessageCanBeSettledAfterFailure(t *testing.T) {
	s := &settler{fail: []error{errBroken}}
	m := broker.NewMessage(broker.Message{}, s)
	if err := m.Ack(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("Ack: got %v, want %v", err, errBroken)
	}
	if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
		t.Errorf("Nack: got %v, want nil", err)
	}
	if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
		t.Errorf("Ack: got %v, want ErrSettled", err)
	}
}

// A message that the broker has taken away is settled, by Extend too.
func TestMessageLost(t *testing.T) {
	for name, first := range map[string]func(*broker.Message) error{
		"ack":    func(m *broker.Message) error { return m.Ack(t.Context()) },
		"extend": func(m *broker.Message) error { return m.Extend(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := &settler{fail: []error{errors.Join(errBroken, broker.ErrSettled)}}
			m := broker.NewMessage(broker.Message{}, s)
			if err := first(m); !errors.Is(err, errBroken) {
				t.Errorf("first: got %v, want the settler's error", err)
			}
			if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) || len(s.calls) > 0 {
				t.Errorf("Ack: got %v and calls %v, want ErrSettled and none", err, s.calls)
			}
		})
	}
}

type panicker struct{ settler }

func (*panicker) Ack(context.Context) error { panic("oh") }

func TestMessageSettlerPanics(t *testing.T) {
	m := broker.NewMessage(broker.Message{}, &panicker{})
	if err := m.Ack(t.Context()); err == nil || !strings.Contains(err.Error(), "panicked: oh") {
		t.Errorf("Ack: got %v, want an error with the panic", err)
	}
	if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
		t.Errorf("Nack: got %v, want nil", err)
	}
}

func TestMessageWithoutSettler(t *testing.T) {
	m := &broker.Message{ID: "1"}
	for _, err := range []error{m.Ack(t.Context()), m.Nack(t.Context(), broker.Requeue()), m.Extend(t.Context())} {
		if err == nil {
			t.Error("settlement: got nil, want an error")
		}
	}
}

// One call of a settler runs at a time, and one of many settlements wins.
func TestMessageConcurrentSettlements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &settler{block: make(chan struct{})}
		m := broker.NewMessage(broker.Message{}, s)
		errs := make(chan error, 10)
		for range 5 {
			go func() { errs <- m.Ack(t.Context()) }()
			go func() { errs <- m.Nack(t.Context(), broker.Requeue()) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Extend(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Extend beside a settlement: got %v, want context.Canceled", err)
		}
		close(s.block)
		won := 0
		for range 10 {
			switch err := <-errs; {
			case err == nil:
				won++
			case !errors.Is(err, broker.ErrSettled):
				t.Errorf("settlement: got %v, want nil or ErrSettled", err)
			}
		}
		if won != 1 || len(s.calls) != 1 || s.most != 1 {
			t.Errorf("got %d winners, calls %v, %d at a time, want one each", won, s.calls, s.most)
		}
	})
}

func TestDeadLetterReason(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                            "plain",
		"two\nlines\x00":                   "two lines ",
		"bad \xff byte":                    "bad \uFFFD byte",
		strings.Repeat("é", 600):           strings.Repeat("é", 500),
		"x" + strings.Repeat("é", 600):     "x" + strings.Repeat("é", 499),
		strings.Repeat("\u00e9\u20ac", 10): strings.Repeat("\u00e9\u20ac", 10),
	} {
		s := &settler{}
		m := broker.NewMessage(broker.Message{}, s)
		if err := m.Nack(t.Context(), broker.DeadLetter(in)); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimPrefix(s.calls[0], "dead "); got != want || !utf8.ValidString(got) {
			t.Errorf("reason: got %q, want %q", got, want)
		}
	}
}
