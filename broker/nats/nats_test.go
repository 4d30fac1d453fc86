package nats_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	weirnats "github.com/weir-go/weir/broker/nats"
)

// A fixture is a server in this process with a connection.
type fixture struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	s, err := newServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	nc, js, err := connect(strings.TrimPrefix(s.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	f := &fixture{nc, js}
	f.stream(t, "JOBS", "jobs.>")
	f.stream(t, "DEAD", "dead.>")
	return f
}

func (f *fixture) stream(t testing.TB, name, subject string) {
	t.Helper()
	if _, err := f.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
		t.Fatal(err)
	}
}

// consumer makes the consumer "worker" of the stream JOBS.
func (f *fixture) consumer(t testing.TB, change func(*jetstream.ConsumerConfig)) {
	t.Helper()
	c := jetstream.ConsumerConfig{Durable: worker, AckPolicy: jetstream.AckExplicitPolicy}
	if change != nil {
		change(&c)
	}
	if _, err := f.js.CreateConsumer(t.Context(), "JOBS", c); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) publish(t testing.TB, subject, body string, header nats.Header) {
	t.Helper()
	if _, err := f.js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body), Header: header}); err != nil {
		t.Fatal(err)
	}
}

// open opens a source of the consumer, which ends with the test.
func (f *fixture) open(t testing.TB, c weirnats.Config) broker.Source {
	t.Helper()
	c.Stream, c.Consumer = "JOBS", worker
	c.Source.Logger = slog.New(slog.DiscardHandler)
	source, err := weirnats.Open(t.Context(), f.js, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = source.Close(ctx)
	})
	return source
}

func next(t testing.TB, s broker.Source) *broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("Next = %v, want a message", err)
	}
	return m
}

func TestOpenExplainsWrongSettings(t *testing.T) {
	for name, c := range map[string]struct {
		consumer func(*jetstream.ConsumerConfig)
		config   weirnats.Config
		want     []string
	}{
		"good":             {nil, weirnats.Config{DeadLetter: "dead.jobs", Demand: 64}, nil},
		"no names":         {nil, weirnats.Config{Stream: "-", Consumer: "-"}, []string{"Stream: got none", "Consumer: got none"}},
		"acknowledges all": {func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy }, weirnats.Config{}, []string{"AckPolicy: got"}},
		"acknowledges none": {
			func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckNonePolicy },
			weirnats.Config{},
			[]string{"AckPolicy: got"},
		},
		"drops": {func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }, weirnats.Config{}, []string{"MaxDeliver: got 5, want -1"}},
		"few pending": {
			func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 10 },
			weirnats.Config{Demand: 11},
			[]string{"MaxAckPending: got 10, want at least the demand of 11"},
		},
		"extends too late": {
			func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second },
			weirnats.Config{Source: broker.SourceConfig{ExtendEvery: time.Second}},
			[]string{"AckWait: got 1s, want more than ExtendEvery of 1s"},
		},
		"backs off sooner": {
			func(c *jetstream.ConsumerConfig) { c.BackOff = []time.Duration{time.Minute, time.Second} },
			weirnats.Config{Source: broker.SourceConfig{ExtendEvery: 2 * time.Second}},
			[]string{"AckWait: got 1s"},
		},
		"no bodies":        {func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }, weirnats.Config{}, []string{"HeadersOnly"}},
		"pushes":           {func(c *jetstream.ConsumerConfig) { c.DeliverSubject = "x" }, weirnats.Config{}, []string{"got a push consumer"}},
		"dead, not stored": {nil, weirnats.Config{DeadLetter: "nowhere"}, []string{"no stream stores"}},
		"dead, wildcard":   {nil, weirnats.Config{DeadLetter: "dead.*"}, []string{"without wildcards"}},
		"dead, again":      {nil, weirnats.Config{DeadLetter: "jobs.dead"}, []string{"deliver again"}},
		"dead, again by a filter": {
			func(c *jetstream.ConsumerConfig) { c.FilterSubjects = []string{"jobs.a.b", "jobs.*"} },
			weirnats.Config{DeadLetter: "jobs.dead"},
			[]string{"deliver again"},
		},
		"dead, same stream": {func(c *jetstream.ConsumerConfig) { c.FilterSubject = "jobs.new.>" }, weirnats.Config{DeadLetter: "jobs.dead"}, nil},
		"negative": {
			nil,
			weirnats.Config{RequeueDelay: -1, Demand: -1, Source: broker.SourceConfig{MaxHold: -1}},
			[]string{"RequeueDelay: got -1ns", "Demand: got -1"},
		},
		"of the source": {nil, weirnats.Config{Source: broker.SourceConfig{MaxHold: -1}}, []string{"MaxHold"}},
		"many at once": {
			func(c *jetstream.ConsumerConfig) { c.AckPolicy, c.MaxDeliver = jetstream.AckAllPolicy, 2 },
			weirnats.Config{DeadLetter: "nowhere"},
			[]string{"AckPolicy", "MaxDeliver", "DeadLetter"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if name == "pushes" { // the client makes no push consumers by this call
				_, err := f.js.CreatePushConsumer(t.Context(), "JOBS", jetstream.ConsumerConfig{Durable: worker, DeliverSubject: "x"})
				if err != nil {
					t.Fatal(err)
				}
			} else {
				f.consumer(t, c.consumer)
			}
			switch c.config.Stream {
			case "-":
				c.config.Stream, c.config.Consumer = "", ""
			default:
				c.config.Stream, c.config.Consumer = "JOBS", worker
			}
			source, err := weirnats.Open(t.Context(), f.js, c.config)
			if c.want == nil {
				if err != nil {
					t.Fatalf("Open = %v, want no error", err)
				}
				_ = source.Close(t.Context())
				return
			}
			if !errors.Is(err, weirnats.ErrConfig) {
				t.Errorf("Open = %v, want %v", err, weirnats.ErrConfig)
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Open = %v, want it to say %q", err, want)
				}
			}
		})
	}
}

func TestOpenNeedsTheConsumer(t *testing.T) {
	f := newFixture(t)
	for _, c := range []weirnats.Config{{Stream: "JOBS", Consumer: "other"}, {Stream: "OTHER", Consumer: worker}} {
		if _, err := weirnats.Open(t.Context(), f.js, c); err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("Open of consumer %s of stream %s = %v, want that it was not found", c.Consumer, c.Stream, err)
		}
	}
	if _, err := weirnats.Open(t.Context(), nil, weirnats.Config{}); !errors.Is(err, weirnats.ErrConfig) {
		t.Errorf("Open without JetStream = %v, want %v", err, weirnats.ErrConfig)
	}
}

func TestMessageSaysWhereItComesFrom(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, nil)
	// An empty body with a header named Status is a message, not an answer of the server.
	f.publish(t, "jobs.a", "", nats.Header{"Status": {"404"}, "Many": {"one", "two"}})
	s := f.open(t, weirnats.Config{})
	s.Request(1)
	m := next(t, s)
	if m.ID != "JOBS:1" || m.Key != "jobs.a" || m.Attempt != 1 || len(m.Body) != 0 {
		t.Errorf("message = %s, %s, attempt %d, %q; want JOBS:1, jobs.a, 1, no body", m.ID, m.Key, m.Attempt, m.Body)
	}
	if m.Attributes["Status"] != "404" || m.Attributes["Many"] != "one" {
		t.Errorf("attributes = %v, want Status 404 and Many one", m.Attributes)
	}
	if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
		t.Fatal(err)
	}
	s.Request(1)
	if m = next(t, s); m.Attempt != 2 {
		t.Errorf("attempt after a requeue = %d, want 2", m.Attempt)
	}
}

func TestDeadLetterKeepsTheMessageUntilItIsStored(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, nil)
	f.publish(t, "jobs.a", "pay -5", nats.Header{"Trace": {"7"}, nats.MsgIdHdr: {"once"}, "Nats-Expected-Stream": {"JOBS"}})
	s := f.open(t, weirnats.Config{DeadLetter: "dead.jobs"})
	s.Request(1)
	m := next(t, s)
	if err := f.js.DeleteStream(t.Context(), "DEAD"); err != nil {
		t.Fatal(err)
	}
	if err := m.Nack(t.Context(), broker.DeadLetter("negative")); !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("dead letter without a stream = %v, want %v", err, jetstream.ErrNoStreamResponse)
	}
	if n := f.unacked(t); n != 1 {
		t.Errorf("%d messages are unacknowledged after that, want 1", n)
	}
	f.stream(t, "DEAD", "dead.>")
	if err := m.Nack(t.Context(), broker.DeadLetter("negative")); err != nil {
		t.Fatalf("dead letter = %v, want no error", err)
	}
	if n := f.unacked(t); n != 0 {
		t.Errorf("%d messages are unacknowledged after the dead letter, want 0", n)
	}
	stream, err := f.js.Stream(t.Context(), "DEAD")
	if err != nil {
		t.Fatal(err)
	}
	dead, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		weirnats.HeaderReason: "negative", weirnats.HeaderStream: "JOBS", weirnats.HeaderSequence: "1",
		weirnats.HeaderSubject: "jobs.a", weirnats.HeaderAttempt: "1", "Trace": "7", "Nats-Expected-Stream": "",
	} {
		if got := dead.Header.Get(name); got != want {
			t.Errorf("header %s of the dead letter = %q, want %q", name, got, want)
		}
	}
	if string(dead.Data) != "pay -5" {
		t.Errorf("body of the dead letter = %q, want that of the message", dead.Data)
	}
}

func (f *fixture) unacked(t testing.TB) int {
	t.Helper()
	c, err := f.js.Consumer(t.Context(), "JOBS", worker)
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().NumAckPending
}

func TestDeadLetterNeedsASubject(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, nil)
	f.publish(t, "jobs.a", "x", nil)
	s := f.open(t, weirnats.Config{})
	s.Request(1)
	m := next(t, s)
	if err := m.Nack(t.Context(), broker.DeadLetter("r")); err == nil || !strings.Contains(err.Error(), "Config.DeadLetter is not set") {
		t.Errorf("dead letter = %v, want that Config.DeadLetter is not set", err)
	}
	if err := m.Ack(t.Context()); err != nil {
		t.Errorf("Ack after the failed dead letter = %v, want nil", err)
	}
}

func TestRequeueDelayHoldsTheMessageBack(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, nil)
	f.publish(t, "jobs.a", "x", nil)
	const delay = 300 * time.Millisecond
	s := f.open(t, weirnats.Config{RequeueDelay: delay})
	s.Request(1)
	m := next(t, s)
	began := time.Now()
	if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
		t.Fatal(err)
	}
	s.Request(1)
	m = next(t, s)
	if took := time.Since(began); took < delay {
		t.Errorf("the message was delivered again after %v, want at least %v", took, delay)
	}
	if err := m.Ack(t.Context()); err != nil {
		t.Error(err)
	}
}

// The server refuses pull requests beyond these limits of the consumer.
func TestFetchObeysTheLimitsOfRequests(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch, c.MaxRequestExpires = 3, time.Second })
	const n = 10
	for range n {
		f.publish(t, "jobs.a", "x", nil)
	}
	var failed atomic.Int64
	s := f.open(t, weirnats.Config{Source: broker.SourceConfig{OnError: func(error) { failed.Add(1) }}})
	s.Request(n)
	for range n {
		next(t, s)
	}
	if got := failed.Load(); got != 0 {
		t.Errorf("%d errors, want 0", got)
	}
}

func TestFetchReportsADemandAboveMaxAckPending(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 2 })
	for range 5 {
		f.publish(t, "jobs.a", "x", nil)
	}
	said := make(chan error, 10)
	s := f.open(t, weirnats.Config{Source: broker.SourceConfig{OnError: func(err error) { said <- err }}})
	s.Request(5)
	if err := <-said; !strings.Contains(err.Error(), "demand of 5") || !strings.Contains(err.Error(), "MaxAckPending of 2") {
		t.Errorf("reported %v, want the demand of 5 and the MaxAckPending of 2", err)
	}
	for range 5 { // and goes on
		if err := next(t, s).Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestNextFailsWhenTheConsumerIsDeleted(t *testing.T) {
	for name, early := range map[string]bool{"while a request waits": false, "before a request": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.consumer(t, nil)
			s := f.open(t, weirnats.Config{})
			if !early {
				f.publish(t, "jobs.a", "x", nil)
				s.Request(2)
				next(t, s) // so the second request is at the server
			}
			if err := f.js.DeleteConsumer(t.Context(), "JOBS", worker); err != nil {
				t.Fatal(err)
			}
			s.Request(1)
			if _, err := s.Next(t.Context()); !errors.Is(err, broker.ErrPermanent) || !strings.Contains(err.Error(), "deleted") {
				t.Errorf("Next = %v, want %v and that the consumer was deleted", err, broker.ErrPermanent)
			}
		})
	}
}

func TestNextFailsWhenTheConnectionIsClosed(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, nil)
	s := f.open(t, weirnats.Config{})
	s.Request(1)
	f.nc.Close()
	if _, err := s.Next(t.Context()); !errors.Is(err, broker.ErrPermanent) || !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Next = %v, want %v and %v", err, broker.ErrPermanent, nats.ErrConnectionClosed)
	}
}

// A server that has forgotten a delivery in a crash does not answer its acknowledgement.
func TestAckOfAForgottenDeliveryEnds(t *testing.T) {
	f := newFixture(t)
	f.consumer(t, nil)
	f.publish(t, "jobs.a", "x", nil)
	s := f.open(t, weirnats.Config{})
	s.Request(1)
	m := next(t, s)
	if err := f.js.DeleteConsumer(t.Context(), "JOBS", worker); err != nil {
		t.Fatal(err)
	}
	// Something listens and does not answer.
	silent, err := f.nc.Subscribe("$JS.ACK.>", func(*nats.Msg) {})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Unsubscribe()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.Ack(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, broker.ErrSettled) {
		t.Errorf("Ack within 100 ms = %v, want only %v", err, context.DeadlineExceeded)
	}
	if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
		t.Errorf("Ack without an end = %v, want %v", err, broker.ErrSettled)
	}
}
