package redis_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
)

var noConfig brokertest.QueueConfig

func itoa(n int) string { return strconv.Itoa(n) }

// TestRequeue checks that a requeued entry comes back at once, again and again, with the
// number of its deliveries.
func TestRequeue(t *testing.T) {
	s := sharedServer(t)
	c := config(s.addr, "s")
	c.Consumer, c.Poll = "me", time.Minute // longer than the test waits
	source := open(t, c)
	id := s.add(t, "s", "a")[0]
	source.Request(1)
	for attempt := 1; attempt <= 5; attempt++ {
		m := next(t, source)
		if m.Attempt != attempt || string(m.Body) != "a" {
			t.Fatalf("got %q, attempt %d, want \"a\", attempt %d", m.Body, m.Attempt, attempt)
		}
		source.Request(1)
		if attempt > 1 { // the source waits for new entries now, and must be woken
			await(t, "the source waits", func() bool {
				info, err := s.client.Info(t.Context(), "clients").Result()
				return err == nil && strings.Contains(info, "blocked_clients:1")
			})
		}
		do(t, m.Nack(t.Context(), broker.Requeue()))
	}
	m := next(t, source)
	wantPending(t, s, "s", "me: "+id+", 6")
	do(t, m.Ack(t.Context()))
	wantPending(t, s, "s")
}

// TestRequeueReachesOthers checks that another consumer gets a requeued entry, without
// waiting for AckTimeout.
func TestRequeueReachesOthers(t *testing.T) {
	s := sharedServer(t)
	s.add(t, "s", "a")
	first, second := open(t, config(s.addr, "s")), open(t, config(s.addr, "s"))
	m := take(t, first, 1)[0]
	second.Request(1)
	do(t, m.Nack(t.Context(), broker.Requeue()))
	if m := next(t, second); m.Attempt != 2 {
		t.Errorf("got attempt %d, want 2", m.Attempt)
	}
}

// TestTakenOver checks settlements of an entry that another consumer has taken over.
func TestTakenOver(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	do(t, s.Create(ctx, "s", noConfig))
	steal := func(t *testing.T) (*broker.Message, string) {
		t.Helper()
		id := s.add(t, "s", "a")[0]
		m := take(t, open(t, config(s.addr, "s")), 1)[0]
		do(t, s.client.XClaim(ctx, &goredis.XClaimArgs{Stream: "s", Group: group, Consumer: "thief", Messages: []string{id}}).Err())
		return m, id
	}
	for name, settle := range map[string]func(*broker.Message) error{
		"requeue":     func(m *broker.Message) error { return m.Nack(ctx, broker.Requeue()) },
		"dead letter": func(m *broker.Message) error { return m.Nack(ctx, broker.DeadLetter("bad")) },
		"extend":      func(m *broker.Message) error { return m.Extend(ctx) },
		"late ack": func(m *broker.Message) error {
			do(t, s.client.XAck(ctx, "s", group, m.ID).Err())
			return m.Ack(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, id := steal(t)
			if err := settle(m); !errors.Is(err, broker.ErrSettled) {
				t.Errorf("got %v, want ErrSettled", err)
			}
			if name != "late ack" {
				wantPending(t, s, "s", "thief: "+id+", 2")
				do(t, s.client.XAck(ctx, "s", group, id).Err())
			}
		})
	}
	t.Run("ack", func(t *testing.T) {
		m, _ := steal(t)
		do(t, m.Ack(ctx)) // it was consumed, whoever has it now
		wantPending(t, s, "s")
	})
	if n := s.client.XLen(ctx, "s.dead").Val(); n != 0 {
		t.Errorf("got %d dead letters, want none", n)
	}
}

// TestOldReceipt settles an entry that was taken over and came back meanwhile.
func TestOldReceipt(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	id := s.add(t, "s", "a")[0]
	c := config(s.addr, "s")
	c.Consumer = "me"
	source := open(t, c)
	source.Request(2)
	old := next(t, source)
	do(t, s.client.Do(ctx, "XCLAIM", "s", group, "weir-given-back", 0, id, "IDLE", time.Hour.Milliseconds(), "JUSTID").Err())
	m := next(t, source)
	for name, err := range map[string]error{
		"extend":      old.Extend(ctx),
		"requeue":     old.Nack(ctx, broker.Requeue()),
		"dead letter": old.Nack(ctx, broker.DeadLetter("bad")),
	} {
		if !errors.Is(err, broker.ErrSettled) {
			t.Errorf("%s of the old receipt: got %v, want ErrSettled", name, err)
		}
	}
	wantPending(t, s, "s", "me: "+id+", 2")
	do(t, m.Ack(ctx))
	wantPending(t, s, "s")
}

func TestExtend(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	id := s.add(t, "s", "a")[0]
	c := config(s.addr, "s")
	c.Consumer = "me"
	m := take(t, open(t, c), 1)[0]
	do(t, s.client.Do(ctx, "XCLAIM", "s", group, "me", 0, id, "IDLE", time.Hour.Milliseconds(), "JUSTID").Err())
	do(t, m.Extend(ctx))
	entries, err := s.client.XPendingExt(ctx, &goredis.XPendingExtArgs{Stream: "s", Group: group, Start: "-", End: "+", Count: 1}).Result()
	if err != nil || len(entries) != 1 || entries[0].Idle >= time.Hour || entries[0].RetryCount != 1 {
		t.Errorf("got %+v, %v, want one entry, no longer idle, delivered once", entries, err)
	}
}

// TestDeadLetter checks that a dead letter has all that the entry had.
func TestDeadLetter(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	for _, del := range []bool{false, true} {
		s.client.FlushAll(ctx)
		fields := []string{"z", "1", "body", "\x00\xff", "z", "2", "\xff", "binary"}
		id, err := s.client.XAdd(ctx, &goredis.XAddArgs{Stream: "s", Values: fields}).Result()
		do(t, err)
		c := config(s.addr, "s")
		c.Delete = del
		do(t, take(t, open(t, c), 1)[0].Nack(ctx, broker.DeadLetter("it is bad")))
		got, err := s.client.Do(ctx, "XRANGE", "s.dead", "-", "+").Slice()
		if err != nil || len(got) != 1 {
			t.Fatalf("got dead letters %v, %v, want one", got, err)
		}
		want := append(slices.Clone(fields), "weir-reason", "it is bad", "weir-stream", "s", "weir-group", group, "weir-id", id, "weir-attempt", "1")
		var have []string
		for _, f := range got[0].([]any)[1].([]any) {
			have = append(have, f.(string))
		}
		if strings.Join(have, "|") != strings.Join(want, "|") {
			t.Errorf("got fields %q, want %q", have, want)
		}
		wantPending(t, s, "s")
		if n := s.client.XLen(ctx, "s").Val(); (n == 0) != del {
			t.Errorf("Delete %t: got %d entries in the stream", del, n)
		}
	}
}

// TestDeadLetterFails checks that a message is not lost when it cannot be set aside.
func TestDeadLetterFails(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	do(t, s.client.Set(ctx, "no stream", "x", 0).Err())
	for name, deadLetters := range map[string]string{"not configured": "", "of another type": "no stream"} {
		t.Run(name, func(t *testing.T) {
			s.add(t, "s", "a")
			c := config(s.addr, "s")
			c.DeadLetters = deadLetters
			m := take(t, open(t, c), 1)[0]
			if err := m.Nack(ctx, broker.DeadLetter("bad")); err == nil || errors.Is(err, broker.ErrSettled) {
				t.Errorf("got %v, want an error that leaves the message", err)
			}
			if got := s.pending(t, "s"); len(got) != 1 {
				t.Errorf("pending entries: got %q, want one", got)
			}
			do(t, m.Ack(ctx))
		})
	}
}

// TestLostAnswer loses the answer to a settlement, which has taken place.
func TestLostAnswer(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	for name, c := range map[string]struct {
		command string
		settle  func(*broker.Message) error
		dead    int64
	}{
		"ack":         {"XACK", func(m *broker.Message) error { return m.Ack(ctx) }, 0},
		"dead letter": {"WEIR-REASON", func(m *broker.Message) error { return m.Nack(ctx, broker.DeadLetter("bad")) }, 1},
		"requeue":     {"WEIR-GIVEN-BACK", func(m *broker.Message) error { return m.Nack(ctx, broker.Requeue()) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			do(t, s.client.FlushAll(ctx).Err())
			var lossy lossy
			conf := config(s.addr, "s")
			conf.Redis.Dialer = lossy.dial
			s.add(t, "s", "a", "b")
			source := open(t, conf)
			messages := take(t, source, 2)
			do(t, c.settle(messages[0])) // loads the script, so that one command settles the next
			lossy.loseReplyTo(c.command)
			if err := c.settle(messages[1]); err != nil || !lossy.done() {
				t.Errorf("got %v, lost an answer %t, want success after a lost answer", err, lossy.done())
			}
			if n := s.client.XLen(ctx, "s.dead").Val(); n != 2*c.dead {
				t.Errorf("got %d dead letters, want %d", n, 2*c.dead)
			}
		})
	}
}

// TestSettleWhileDown checks that a settlement waits for a server that comes back.
func TestSettleWhileDown(t *testing.T) {
	s := startServer(t)
	s.add(t, "s", "a", "b")
	messages := take(t, open(t, config(s.addr, "s")), 2)
	m, other := messages[0], messages[1]
	do(t, s.Stop())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // for several attempts to connect
	defer cancel()
	err := other.Ack(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `stream "s"`) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Ack for 2 s: got %v, want %v, the stream and the last try", err, context.DeadlineExceeded)
	}
	acked := make(chan error, 1)
	go func() { acked <- m.Ack(t.Context()) }()
	select {
	case err := <-acked:
		t.Errorf("Ack while the server is down: got %v, want it to wait", err)
	case <-time.After(200 * time.Millisecond):
	}
	do(t, s.Restart())
	do(t, <-acked)
	do(t, other.Ack(t.Context()))
	wantPending(t, s, "s")
}

func TestDelete(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	s.add(t, "s", "a", "b")
	c := config(s.addr, "s")
	c.Delete = true
	source := open(t, c)
	messages := take(t, source, 2)
	do(t, messages[0].Ack(ctx))
	do(t, messages[1].Nack(ctx, broker.Requeue()))
	if n := s.client.XLen(ctx, "s").Val(); n != 1 {
		t.Errorf("got %d entries in the stream, want 1, the requeued one", n)
	}
	do(t, take(t, source, 1)[0].Ack(ctx))
	if n := s.client.XLen(ctx, "s").Val(); n != 0 {
		t.Errorf("got %d entries in the stream, want none", n)
	}
}
