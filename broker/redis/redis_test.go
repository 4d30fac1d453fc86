package redis_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/redis"
	"github.com/weir-go/weir/internal/logtest"
)

func TestMessage(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	for _, protocol := range []int{2, 3} {
		stream := "message-" + string(rune('0'+protocol))
		id, err := s.client.XAdd(ctx, &goredis.XAddArgs{Stream: stream, Values: []string{
			"body", "\x00\xff", "key", "k", "trace", "t", "binary", "\xff", "\xff", "binary name",
		}}).Result()
		do(t, err)
		c := config(s.addr, stream)
		c.Redis.Protocol = protocol
		m := take(t, open(t, c), 1)[0]
		if m.ID != id || string(m.Body) != "\x00\xff" || m.Key != "k" || m.Attempt != 1 {
			t.Errorf("protocol %d: got ID %q, body %q, key %q, attempt %d, want %q, \"\\x00\\xff\", \"k\", 1",
				protocol, m.ID, m.Body, m.Key, m.Attempt, id)
		}
		if len(m.Attributes) != 1 || m.Attributes["trace"] != "t" {
			t.Errorf("protocol %d: got attributes %q, want trace alone, since the others are not text", protocol, m.Attributes)
		}
		do(t, m.Ack(ctx))
	}
}

func TestOtherFields(t *testing.T) {
	s := sharedServer(t)
	do(t, s.client.XAdd(t.Context(), &goredis.XAddArgs{Stream: "s", Values: []string{"payload", "p", "user", "u", "body", "b"}}).Err())
	c := config(s.addr, "s")
	c.BodyField, c.KeyField = "payload", "user"
	m := take(t, open(t, c), 1)[0]
	if string(m.Body) != "p" || m.Key != "u" || m.Attributes["body"] != "b" {
		t.Errorf("got body %q, key %q, attributes %q, want \"p\", \"u\" and body=b", m.Body, m.Key, m.Attributes)
	}
}

// TestTakesOver checks that the entries of dead consumers count against the demand, come
// with the number of their deliveries, and that others keep theirs.
func TestTakesOver(t *testing.T) {
	s := sharedServer(t)
	do(t, s.Create(t.Context(), "s", noConfig))
	ids := s.add(t, "s", "a", "b", "c", "d", "e", "f")
	s.die(t, "s", "dead", 3, time.Hour)
	s.die(t, "s", "alive", 1, time.Second)
	c := config(s.addr, "s")
	c.Consumer = "me"
	source := open(t, c)
	if got := bodies(take(t, source, 2)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q, want the oldest entries of the dead consumer", got)
	}
	wantPending(t, s, "s", "me: "+ids[0]+", 2", "me: "+ids[1]+", 2", "dead: "+ids[2]+", 1", "alive: "+ids[3]+", 1")
	rest := take(t, source, 3)
	if got := bodies(rest); !slices.Equal(got, []string{"c", "e", "f"}) {
		t.Errorf("got %q, want the last entry of the dead consumer, then the new ones", got)
	}
	if rest[0].Attempt != 2 || rest[1].Attempt != 1 {
		t.Errorf("got attempts %d and %d, want 2 and 1", rest[0].Attempt, rest[1].Attempt)
	}
}

// TestTakesOverMany checks that a long list of entries in work hides no dead consumer.
func TestTakesOverMany(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	do(t, s.Create(ctx, "s", noConfig))
	const alive = 2500 // claimScript looks at 1,000 at a time
	_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for range alive + 3 {
			p.XAdd(ctx, &goredis.XAddArgs{Stream: "s", Values: []string{"body", "x"}})
		}
		return nil
	})
	do(t, err)
	do(t, s.client.XReadGroup(ctx, &goredis.XReadGroupArgs{Group: group, Consumer: "alive", Streams: []string{"s", ">"}, Count: alive}).Err())
	s.die(t, "s", "dead", 3, time.Hour)
	for _, m := range take(t, open(t, config(s.addr, "s")), 3) {
		if m.Attempt != 2 {
			t.Errorf("got attempt %d, want 2, since another consumer died with the entry", m.Attempt)
		}
	}
}

// TestSameName checks that a process gets at once what the former process of its name had.
func TestSameName(t *testing.T) {
	s := sharedServer(t)
	do(t, s.Create(t.Context(), "s", noConfig))
	s.add(t, "s", "a", "b")
	s.die(t, "s", "me", 1, 0)
	c := config(s.addr, "s")
	c.Consumer, c.AckTimeout = "me", time.Hour
	messages := take(t, open(t, c), 2)
	if got := bodies(messages); !slices.Equal(got, []string{"a", "b"}) || messages[0].Attempt != 2 {
		t.Errorf("got %q and attempt %d, want a with attempt 2, then b", got, messages[0].Attempt)
	}
}

// TestLostReply loses the reply with which Redis has delivered entries. They must arrive
// without waiting for AckTimeout, as a first attempt, and Redis must never count more.
func TestLostReply(t *testing.T) {
	for _, command := range []string{"XREADGROUP", "EVALSHA"} {
		t.Run(command, func(t *testing.T) {
			s := sharedServer(t)
			do(t, s.Create(t.Context(), "s", noConfig))
			var lossy lossy
			c := config(s.addr, "s")
			c.Redis.Dialer, c.AckTimeout = lossy.dial, time.Hour
			source := open(t, c)
			do(t, take(t, source, addOne(t, s))[0].Ack(t.Context()))
			attempt := 1
			s.add(t, "s", "a", "b", "c", "d", "e")
			if command == "EVALSHA" {
				s.die(t, "s", "dead", 5, time.Hour)
				attempt = 2
			}
			lossy.loseReplyTo(command)
			messages := take(t, source, 3)
			if !lossy.done() {
				t.Fatal("no reply was lost")
			}
			for i, m := range messages {
				if want := string(rune('a' + i)); string(m.Body) != want || m.Attempt != attempt {
					t.Errorf("got %q, attempt %d, want %q, attempt %d", m.Body, m.Attempt, want, attempt)
				}
			}
			counts, err := s.Counts(t.Context(), "s")
			if command == "XREADGROUP" && (err != nil || counts.Unacked != 3) {
				t.Errorf("got %+v, %v, want 3 unacknowledged entries", counts, err)
			}
		})
	}
}

// addOne adds an entry and returns 1.
func addOne(t testing.TB, s *server) int {
	t.Helper()
	return len(s.add(t, "s", "first"))
}

// TestGroup checks what becomes of a group that is missing, at the start and later.
func TestGroup(t *testing.T) {
	for name, c := range map[string]struct {
		from    string
		destroy func(context.Context, *server) error
		want    []string // in an order that a group from the beginning gives
		warns   bool
	}{
		"missing":                 {want: []string{"old", "new"}},
		"missing, from the end":   {from: "$", want: []string{"new"}},
		"the server forgot all":   {destroy: func(ctx context.Context, s *server) error { return s.client.FlushAll(ctx).Err() }, want: []string{"new"}, warns: true},
		"only the group vanished": {from: "$", destroy: func(ctx context.Context, s *server) error { return s.client.XGroupDestroy(ctx, "s", group).Err() }, want: []string{"old", "seen", "new"}, warns: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := sharedServer(t)
			var log logtest.Book
			conf := config(s.addr, "s")
			conf.From, conf.Source.Logger = c.from, log.Logger()
			source := open(t, conf)
			s.add(t, "s", "old")
			source.Request(3)
			if c.destroy != nil || c.from == "$" {
				await(t, "the group exists", func() bool { return s.client.XInfoConsumers(t.Context(), "s", group).Err() == nil })
			}
			if c.destroy != nil {
				s.add(t, "s", "seen")
				m := next(t, source)
				for string(m.Body) != "seen" {
					do(t, m.Ack(t.Context()))
					source.Request(1)
					m = next(t, source)
				}
				do(t, c.destroy(t.Context(), s))
				if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
					t.Errorf("Ack of a message that Redis does not know any more: got %v, want ErrSettled", err)
				}
				source.Request(1)
			}
			s.add(t, "s", "new")
			for _, want := range c.want {
				if m := next(t, source); string(m.Body) != want {
					t.Errorf("got %q, want %q", m.Body, want)
				}
			}
			if got := strings.Contains(log.String(), "had vanished"); got != c.warns {
				t.Errorf("logged that the group had vanished: %t, want %t", got, c.warns)
			}
		})
	}
}

func TestWrongType(t *testing.T) {
	s := sharedServer(t)
	do(t, s.client.Set(t.Context(), "s", "no stream", 0).Err())
	source := open(t, config(s.addr, "s"))
	source.Request(1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := source.Next(ctx); !errors.Is(err, broker.ErrPermanent) || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("Next: got %v, want ErrPermanent with WRONGTYPE", err)
	}
}

// TestTrimmed checks entries that the producer trims while consumers have them.
func TestTrimmed(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	t.Run("of a dead consumer", func(t *testing.T) {
		do(t, s.Create(ctx, "dead", noConfig))
		s.add(t, "dead", "trimmed", "kept")
		s.die(t, "dead", "dead", 2, time.Hour)
		do(t, s.client.XTrimMaxLen(ctx, "dead", 1).Err())
		var log logtest.Book
		c := config(s.addr, "dead")
		c.Source.Logger = log.Logger()
		if got := string(take(t, open(t, c), 1)[0].Body); got != "kept" || !strings.Contains(log.String(), "entries=1") {
			t.Errorf("got %q, want the entry that is left, and a warning about the other one", got)
		}
		if got := s.pending(t, "dead"); len(got) != 1 {
			t.Errorf("pending entries: got %q, want one", got)
		}
	})
	hold := func(t *testing.T, stream, deadLetters string) *broker.Message {
		t.Helper()
		s.add(t, stream, "a")
		c := config(s.addr, stream)
		c.DeadLetters = deadLetters
		m := take(t, open(t, c), 1)[0]
		do(t, s.client.XTrimMaxLen(ctx, stream, 0).Err())
		do(t, m.Extend(ctx))
		return m
	}
	t.Run("requeued", func(t *testing.T) {
		do(t, hold(t, "requeue", "requeue.dead").Nack(ctx, broker.Requeue()))
		letters, err := s.DeadLetters(ctx, "requeue")
		if err != nil || len(letters) != 1 || string(letters[0].Body) != "a" || !strings.Contains(letters[0].Reason, "trimmed") {
			t.Errorf("got dead letters %q, %v, want the entry, since it cannot be delivered again", letters, err)
		}
		wantPending(t, s, "requeue")
	})
	t.Run("requeued without dead letters", func(t *testing.T) {
		err := hold(t, "lost", "").Nack(ctx, broker.Requeue())
		if !errors.Is(err, redis.ErrTrimmed) || !errors.Is(err, broker.ErrSettled) {
			t.Errorf("Requeue: got %v, want ErrTrimmed and ErrSettled", err)
		}
		wantPending(t, s, "lost")
	})
	t.Run("set aside", func(t *testing.T) {
		do(t, hold(t, "aside", "aside.dead").Nack(ctx, broker.DeadLetter("bad")))
		letters, err := s.DeadLetters(ctx, "aside")
		if err != nil || len(letters) != 1 || letters[0].Reason != "bad" {
			t.Errorf("got dead letters %q, %v, want one", letters, err)
		}
	})
	t.Run("acknowledged", func(t *testing.T) {
		do(t, hold(t, "ack", "").Ack(ctx))
		wantPending(t, s, "ack")
	})
}

// TestFair checks that a consumer finds the entries of a dead one while others get all new
// entries. Redis starts the time of a blocked command again each time.
func TestFair(t *testing.T) {
	s := sharedServer(t)
	do(t, s.Create(t.Context(), "s", noConfig))
	s.add(t, "s", "a")
	s.die(t, "s", "dead", 1, 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const others = 150
	client := goredis.NewClient(&goredis.Options{Addr: s.addr, PoolSize: others})
	defer client.Close()
	served := make(chan error, others)
	for range others {
		go func() {
			served <- client.XReadGroup(ctx, &goredis.XReadGroupArgs{Group: group, Consumer: "other", Streams: []string{"s", ">"}, Count: 1}).Err()
		}()
	}
	blocked := func(n int) func() bool {
		return func() bool {
			info, err := s.client.Info(ctx, "clients").Result()
			return err == nil && strings.Contains(info, "blocked_clients:"+itoa(n))
		}
	}
	await(t, "all others wait", blocked(others))
	c := config(s.addr, "s")
	c.Redis.ReadTimeout = time.Minute // a failed read would help the source
	source := open(t, c)
	source.Request(1)
	await(t, "the source waits", blocked(others+1))
	do(t, s.client.Do(ctx, "XCLAIM", "s", group, "dead", 0, s.firstPending(t), "IDLE", time.Hour.Milliseconds(), "JUSTID").Err())
	got := make(chan error, 1)
	go func() {
		_, err := source.Next(ctx)
		got <- err
	}()
	for range others {
		s.add(t, "s", "x")
		do(t, <-served)
		select {
		case err := <-got:
			do(t, err)
			for s.client.XLen(ctx, "s").Val() <= others { // release the others
				s.add(t, "s", "x")
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Error("the source did not find the dead consumer's entry while others got new ones")
}

func (s *server) firstPending(t testing.TB) string {
	t.Helper()
	id, _, _ := strings.Cut(strings.TrimPrefix(s.pending(t, "s")[0], "dead: "), ",")
	return id
}

// TestClose checks what a consumer leaves behind.
func TestClose(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	ids := s.add(t, "s", "a", "b", "c")
	c := config(s.addr, "s")
	c.Consumer = "me"
	source := open(t, c)
	source.Request(3)
	m := next(t, source)
	await(t, "all three are delivered", func() bool { return len(s.pending(t, "s")) == 3 })
	closed := make(chan error, 1)
	go func() { closed <- source.Close(ctx) }()
	await(t, "two are given back", func() bool {
		return slices.Equal(s.pending(t, "s"), []string{"me: " + ids[0] + ", 1", "weir-given-back: " + ids[1] + ", 1", "weir-given-back: " + ids[2] + ", 1"})
	})
	do(t, m.Ack(ctx))
	do(t, <-closed)
	if _, err := source.Next(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("Next after Close: got %v, want EOF", err)
	}
	consumers, err := s.client.XInfoConsumers(ctx, "s", group).Result()
	if err != nil || len(consumers) != 1 || consumers[0].Name != "weir-given-back" {
		t.Errorf("got consumers %+v, %v, want weir-given-back alone", consumers, err)
	}
	again := take(t, open(t, config(s.addr, "s")), 2)
	if got := bodies(again); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("another source: got %q, want b and c", got)
	}
}

// TestCloseGivesBackOrphans closes a source that does not know what Redis has delivered.
func TestCloseGivesBackOrphans(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	do(t, s.Create(ctx, "s", noConfig))
	c := config(s.addr, "s")
	c.Consumer = "me"
	source := open(t, c)
	do(t, take(t, source, addOne(t, s))[0].Ack(ctx))
	ids := s.add(t, "s", "a")
	s.die(t, "s", "me", 1, 0)
	do(t, source.Close(ctx))
	wantPending(t, s, "s", "weir-given-back: "+ids[0]+", 1")
}

// TestSweep checks that the names of dead consumers do not pile up.
func TestSweep(t *testing.T) {
	s := sharedServer(t)
	ctx := t.Context()
	do(t, s.Create(ctx, "s", noConfig))
	s.add(t, "s", "a")
	s.die(t, "s", "weir-busy", 1, 0)
	for _, name := range []string{"weir-idle", "other"} {
		do(t, s.client.XGroupCreateConsumer(ctx, "s", group, name).Err())
	}
	names := func() (names []string) {
		consumers, err := s.client.XInfoConsumers(ctx, "s", group).Result()
		do(t, err)
		for _, c := range consumers {
			names = append(names, c.Name)
		}
		return names
	}
	do(t, redis.Sweep(ctx, s.client, "s", group, time.Hour))
	if got := names(); len(got) != 3 {
		t.Errorf("got consumers %q, want all, since none was idle for an hour", got)
	}
	do(t, redis.Sweep(ctx, s.client, "s", group, 0))
	if got := names(); !slices.Equal(got, []string{"other", "weir-busy"}) {
		t.Errorf("got consumers %q, want other and weir-busy", got)
	}
}

func TestConfig(t *testing.T) {
	good := redis.Config{Stream: "s", Group: "g"}
	for name, c := range map[string]struct {
		change func(*redis.Config)
		want   []string
	}{
		"nothing is set":     {func(c *redis.Config) { *c = redis.Config{} }, []string{"Stream: got none, want the key of the stream", "Group: got none, want the name of the consumer group"}},
		"consumer":           {func(c *redis.Config) { c.Consumer = "weir-given-back" }, []string{`Consumer: got "weir-given-back", want another name`}},
		"dead letters":       {func(c *redis.Config) { c.DeadLetters = "s" }, []string{`DeadLetters: got "s", which is Stream, want another key`}},
		"short ack timeout":  {func(c *redis.Config) { c.AckTimeout = time.Millisecond }, []string{"AckTimeout: got 1ms, want 100ms to 24h"}},
		"long ack timeout":   {func(c *redis.Config) { c.AckTimeout = 25 * time.Hour }, []string{"AckTimeout: got 25h0m0s, want 100ms to 24h"}},
		"negative poll":      {func(c *redis.Config) { c.Poll = -1 }, []string{"Poll: got -1ns, want 10ms to 1m"}},
		"extended too late":  {func(c *redis.Config) { c.Source.ExtendEvery = time.Minute }, []string{"Source: ExtendEvery: got 1m0s, want less than AckTimeout, 1m0s"}},
		"one field for both": {func(c *redis.Config) { c.BodyField = "key" }, []string{`BodyField and KeyField: got "key" for both, want two names`}},
		"of the core":        {func(c *redis.Config) { c.Source.MaxHold = -1 }, []string{"Source: MaxHold: got -1ns, want more than 0, or 0 for 1h0m0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			conf := good
			c.change(&conf)
			_, err := redis.Open(conf)
			if err == nil {
				t.Fatal("Open: got no error, want one")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Open: got %q, want it to say %q", err, want)
				}
			}
			if !errors.Is(err, redis.ErrConfig) {
				t.Errorf("Open: got %v, want ErrConfig", err)
			}
		})
	}
	closeNow(t, open(t, good)) // it never connects
}

// TestCluster runs against a cluster of one.
func TestCluster(t *testing.T) {
	s := startServer(t, "--cluster-enabled", "yes")
	ctx := t.Context()
	do(t, s.client.ClusterAddSlotsRange(ctx, 0, 16383).Err())
	await(t, "the cluster is up", func() bool {
		info, err := s.client.ClusterInfo(ctx).Result()
		return err == nil && strings.Contains(info, "cluster_state:ok")
	})
	ids := s.add(t, "{jobs}", "a", "b", "c")
	c := config(s.addr, "{jobs}")
	c.Redis.IsClusterMode, c.Consumer = true, "me"
	source := open(t, c)
	messages := take(t, source, 3)
	do(t, messages[0].Ack(ctx))
	do(t, messages[1].Nack(ctx, broker.DeadLetter("bad")))
	do(t, messages[2].Nack(ctx, broker.Requeue()))
	m := take(t, source, 1)[0]
	if string(m.Body) != "c" || m.Attempt != 2 {
		t.Errorf("got %q, attempt %d, want c, attempt 2", m.Body, m.Attempt)
	}
	if letters, err := s.DeadLetters(ctx, "{jobs}"); err != nil || len(letters) != 1 || letters[0].Reason != "bad" {
		t.Errorf("got dead letters %q, %v, want one", letters, err)
	}
	wantPending(t, s, "{jobs}", "me: "+ids[2]+", 2")

	s.add(t, "{jobs}", "d")
	c.DeadLetters, c.Consumer = "elsewhere", "you"
	m = take(t, open(t, c), 1)[0]
	if err := m.Nack(ctx, broker.DeadLetter("bad")); err == nil || errors.Is(err, broker.ErrSettled) {
		t.Errorf("dead letters in another slot: got %v, want an error that leaves the message", err)
	}
	do(t, m.Ack(ctx))
}
