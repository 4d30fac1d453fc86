package brokertest_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
)

// faults are what is wrong with an adapter. The zero value is a correct one.
type faults struct {
	config         func(*broker.SourceConfig)
	fetcher        func(*wireClient) broker.Fetcher
	settler        func(*wireClient, broker.Settler) broker.Settler
	source         func(*wireClient, broker.Source) broker.Source
	message        func(*broker.Message)
	keepConnection bool
	patient        bool
	pollWait       time.Duration
}

// settling replaces methods of a Settler.
type settling struct {
	broker.Settler
	ack, requeue, extend func(context.Context) error
	dead                 func(context.Context, string) error
}

func (s settling) Ack(ctx context.Context) error {
	if s.ack == nil {
		return s.Settler.Ack(ctx)
	}
	return s.ack(ctx)
}

func (s settling) Requeue(ctx context.Context) error {
	if s.requeue == nil {
		return s.Settler.Requeue(ctx)
	}
	return s.requeue(ctx)
}

func (s settling) Extend(ctx context.Context) error {
	if s.extend == nil {
		return s.Settler.Extend(ctx)
	}
	return s.extend(ctx)
}

func (s settling) DeadLetter(ctx context.Context, reason string) error {
	if s.dead == nil {
		return s.Settler.DeadLetter(ctx, reason)
	}
	return s.dead(ctx, reason)
}

func ok(context.Context) error { return nil }

// ackEarly acknowledges a message when it arrives.
func ackEarly(_ *wireClient, s broker.Settler) broker.Settler {
	_ = s.Ack(context.Background())
	return settling{Settler: s, ack: ok, requeue: ok, extend: ok}
}

// ackAll acknowledges all earlier messages of the connection, too.
func ackAll() func(*wireClient, broker.Settler) broker.Settler {
	var mu sync.Mutex
	var earlier []broker.Settler
	return func(_ *wireClient, s broker.Settler) broker.Settler {
		mu.Lock()
		defer mu.Unlock()
		earlier = append(earlier, s)
		all := slices.Clone(earlier)
		return settling{Settler: s, ack: func(ctx context.Context) error {
			for _, s := range all {
				_ = s.Ack(ctx)
			}
			return nil
		}}
	}
}

// fetching replaces methods of a Fetcher.
type fetching struct {
	broker.Fetcher
	fetch func(context.Context, int) ([]*broker.Message, error)
}

func (f fetching) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	return f.fetch(ctx, n)
}

// sourcing replaces methods of a Source.
type sourcing struct {
	broker.Source
	request func(int)
	next    func(context.Context) (*broker.Message, error)
	close   func(context.Context) error
}

func (s sourcing) Request(n int) {
	if s.request == nil {
		s.Source.Request(n)
		return
	}
	s.request(n)
}

func (s sourcing) Next(ctx context.Context) (*broker.Message, error) {
	if s.next == nil {
		return s.Source.Next(ctx)
	}
	return s.next(ctx)
}

func (s sourcing) Close(ctx context.Context) error {
	if s.close == nil {
		return s.Source.Close(ctx)
	}
	return s.close(ctx)
}

// background runs f in a goroutine. The function that it returns ends it.
func background(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	return func() { cancel(); <-done }
}

// A row is a faulty adapter with the checks that must notice, and a part of what they say.
type row struct {
	name   string
	faults faults
	checks []string
	say    string
}

var rows = []row{
	{"acknowledges on receipt", faults{settler: ackEarly}, []string{"ack", "kill", "kill-settling", "close"}, ""},
	{"acknowledges earlier messages, too", faults{settler: ackAll()}, []string{"ack"}, "one of 5 messages was acknowledged"},
	{"settles twice", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, ack: func(ctx context.Context) error {
			err := s.Ack(ctx)
			_ = s.Ack(ctx)
			return err
		}}
	}}, []string{"settle-once"}, "refused"},
	{"says that it acknowledged, and did not", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, ack: ok}
	}}, []string{"ack", "content", "drain"}, ""},
	{"loses on requeue", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, requeue: s.Ack}
	}}, []string{"requeue", "poison", "close"}, ""},
	{"keeps on requeue", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, requeue: ok}
	}}, []string{"requeue"}, "no message within"},
	{"counts no further attempt", faults{message: func(m *broker.Message) { m.Attempt = 1 }}, []string{"requeue"}, "attempt = 1"},
	{"ignores a dead letter", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, dead: func(ctx context.Context, _ string) error { return s.Ack(ctx) }}
	}}, []string{"poison", "panic"}, "dead letters = []"},
	{"requeues a dead letter", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, dead: func(ctx context.Context, _ string) error { return s.Requeue(ctx) }}
	}}, []string{"poison"}, ""},
	{"forgets the reason", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, dead: func(ctx context.Context, _ string) error { return s.DeadLetter(ctx, "failed") }}
	}}, []string{"poison"}, "the amount is negative"},
	{"does not extend", faults{config: func(c *broker.SourceConfig) { c.ExtendEvery = 0 }}, []string{"extend"}, "another consumer holds the message"},
	{"extends nothing", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, extend: ok}
	}}, []string{"extend"}, "another consumer holds the message"},

	{"prefetches", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		first := true
		return sourcing{Source: s, request: func(n int) {
			if first {
				n += 3
			}
			first = false
			s.Request(n)
		}}
	}}, []string{"demand", "idle"}, "unacknowledged"},
	{"requests without demand", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		return sourcing{Source: s, request: func(n int) { s.Request(max(n, 1)) }}
	}}, []string{"demand"}, ""},
	{"forgets a request", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		return sourcing{Source: s, request: func(n int) { s.Request(min(n, 30)) }}
	}}, []string{"demand"}, "no message within"},
	{"loses a message when Next ends", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		return sourcing{Source: s, next: func(ctx context.Context) (*broker.Message, error) {
			got := make(chan *broker.Message, 1)
			go func() { m, _ := s.Next(context.Background()); got <- m }()
			select {
			case m := <-got:
				return m, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
	}}, []string{"next"}, ""},

	{"acknowledges on close", faults{settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, requeue: s.Ack}
	}}, []string{"close", "leak", "rebalance"}, ""},
	{"forgets on close", faults{keepConnection: true, settler: func(_ *wireClient, s broker.Settler) broker.Settler {
		return settling{Settler: s, requeue: ok}
	}}, []string{"close", "leak"}, ""},
	{"does not wait on close", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		return sourcing{Source: s, close: func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_ = s.Close(ctx)
			return nil
		}}
	}}, []string{"drain", "close"}, ""},
	{"leaves a connection", faults{keepConnection: true}, []string{"leak"}, "connections are open"},
	{"leaves a goroutine", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		background(func(context.Context) { time.Sleep(time.Minute) })
		return s
	}}, []string{"leak"}, "goroutines are left"},

	{"cuts bodies", faults{message: func(m *broker.Message) { m.Body = m.Body[:min(len(m.Body), 1000)] }}, []string{"large"}, "has not arrived"},
	{"changes bodies", faults{message: func(m *broker.Message) { m.Body = bytes.ToValidUTF8(m.Body[:len(m.Body)-1], nil) }}, []string{"content"}, "body ="},
	{"loses attributes", faults{message: func(m *broker.Message) { delete(m.Attributes, "kind") }}, []string{"content"}, `attribute kind = ""`},
	{"has no ID", faults{message: func(m *broker.Message) { m.ID = "" }}, []string{"content"}, "no ID"},
	{"has no key", faults{message: func(m *broker.Message) { m.Key = "" }}, []string{"keys"}, `key ""`},
	{"drops messages without a body", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			msgs, err := w.Fetch(ctx, n)
			return slices.DeleteFunc(msgs, func(m *broker.Message) bool { return len(m.Body) == 0 }), err
		}}
	}}, []string{"empty"}, "no message within"},
	{"waits for a message on close", faults{source: func(_ *wireClient, s broker.Source) broker.Source {
		asked := 0
		return sourcing{Source: s, request: func(n int) { asked += n; s.Request(n) }, close: func(ctx context.Context) error {
			if asked > 0 {
				long, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				defer cancel()
				if m, err := s.Next(long); err == nil {
					_ = m.Nack(ctx, broker.Requeue())
				}
			}
			return s.Close(ctx)
		}}
	}}, []string{"leave"}, "still waiting"},
	{"reverses a batch", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			msgs, err := w.Fetch(ctx, n)
			slices.Reverse(msgs)
			return msgs, err
		}}
	}}, []string{"keys"}, "arrived after"},
	{"cannot take large messages", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			msgs, err := w.Fetch(ctx, n)
			return slices.DeleteFunc(msgs, func(m *broker.Message) bool {
				return w.consumer.ByteWindow > 0 && int64(len(m.Body)) > w.consumer.ByteWindow
			}), err
		}}
	}}, []string{"large"}, ""},
	{"lets one worker wait", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			if w.consumer.Name == "worker-2" {
				time.Sleep(100 * time.Millisecond)
			}
			return w.Fetch(ctx, n)
		}}
	}}, []string{"share"}, "want at least 160 each"},

	{"polls", faults{pollWait: 15 * time.Millisecond}, []string{"idle"}, "to an empty queue"},
	{"polls without demand", faults{source: func(w *wireClient, s broker.Source) broker.Source {
		stop := background(func(ctx context.Context) {
			for ctx.Err() == nil {
				if c, err := w.connect(); err == nil {
					_ = c.Call("Wire.Ping", 0, new(int))
				}
				time.Sleep(time.Second)
			}
		})
		return sourcing{Source: s, close: func(ctx context.Context) error { stop(); return s.Close(ctx) }}
	}}, []string{"idle"}, "without demand has sent"},

	{"gives up with the connection", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			msgs, err := w.Fetch(ctx, n)
			if err != nil {
				err = errors.Join(err, broker.ErrPermanent)
			}
			return msgs, err
		}}
	}}, []string{"cut", "refuse", "restart"}, "Next failed"},
	{"hangs when the connection is lost", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			msgs, err := w.Fetch(ctx, n)
			if err != nil {
				<-ctx.Done()
			}
			return msgs, err
		}}
	}}, []string{"cut", "stall", "refuse", "restart"}, ""},
	{"waits for a silent connection for ever", faults{patient: true}, []string{"forget"}, "none has arrived"},
	{"gives up when the server is silent", faults{fetcher: func(w *wireClient) broker.Fetcher {
		return fetching{w, func(ctx context.Context, n int) ([]*broker.Message, error) {
			late := time.AfterFunc(3*time.Second, func() {
				if c, err := w.connect(); err == nil {
					w.lost(c)
				}
			})
			defer late.Stop()
			msgs, err := w.Fetch(ctx, n)
			if err != nil && ctx.Err() == nil {
				err = errors.Join(err, broker.ErrPermanent)
			}
			return msgs, err
		}}
	}}, []string{"freeze"}, "Next failed"},
}

// describe describes the broker of the tests with an adapter that has faults.
func describe(f faults) brokertest.Broker {
	return brokertest.Broker{
		Start:        func(t testing.TB) brokertest.Server { return startWire(t) },
		Open:         func(ctx context.Context, c brokertest.Consumer) (broker.Source, error) { return openWire(ctx, c, f) },
		AckTimeout:   400 * time.Millisecond,
		IdleRequests: 10,
		Ignore:       []string{"WireSession", "wireServer", "net/rpc.(*Server)"},
	}
}

func TestConformance(t *testing.T) { brokertest.Run(t, describe(faults{})) }

// A suite that cannot fail proves nothing.
func TestSuiteNoticesFaults(t *testing.T) {
	noticed := map[string]bool{}
	for _, r := range rows {
		b := describe(r.faults)
		b.Patience, b.GiveBack = 2*time.Second, time.Second
		for _, name := range r.checks {
			noticed[name] = true
			t.Run(strings.ReplaceAll(r.name+", "+name, " ", "-"), func(t *testing.T) {
				b := b
				if name == "leak" { // counts all goroutines of the process, so it runs alone
					b.Patience = 3 * time.Second
				} else {
					t.Parallel()
				}
				err := brokertest.RunCheck(t, b, b.Start(t), name)
				if err == nil || !strings.Contains(err.Error(), r.say) {
					t.Errorf("check %s of an adapter that %s: got %v, want an error that says %q", name, r.name, err, r.say)
				}
			})
		}
	}
	for _, c := range brokertest.Checks() {
		if !noticed[c.Name] {
			t.Errorf("no faulty adapter shows that the check %s can fail", c.Name)
		}
	}
}
