package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
)

func ExampleMemory() {
	queue := brokertest.NewMemory(brokertest.MemoryConfig{})
	queue.Publish(broker.Message{Body: []byte("pay 5")}, broker.Message{Body: []byte("pay -3")}, broker.Message{Body: []byte("pay 7")})
	source, err := broker.NewSource(queue.Fetcher(), broker.SourceConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	source.Request(2)
	first, _ := source.Next(ctx)
	second, _ := source.Next(ctx)
	fmt.Printf("%+v\n", queue.Counts())
	_ = first.Ack(ctx)
	_ = second.Nack(ctx, broker.DeadLetter("the amount is negative"))
	_ = source.Close(ctx)
	fmt.Printf("%+v\n", queue.Counts())
	for _, d := range queue.DeadLetters() {
		fmt.Printf("%s: %s\n", d.Body, d.Reason)
	}
	// Output:
	// {Ready:1 Unacked:2 Misuse:0}
	// {Ready:1 Unacked:0 Misuse:0}
	// pay -3: the amount is negative
}

// fetch fetches n messages that are there.
func fetch(t *testing.T, f broker.Fetcher, n int) []*broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	msgs, err := f.Fetch(ctx, n)
	if err != nil || len(msgs) != n {
		t.Fatalf("Fetch(%d) = %d messages, %v; want %[1]d and no error", n, len(msgs), err)
	}
	return msgs
}

func wantCounts(t *testing.T, m *brokertest.Memory, want brokertest.Counts) {
	t.Helper()
	if got := m.Counts(); got != want {
		t.Errorf("counts = %+v, want %+v", got, want)
	}
}

func TestMemoryDeliversAgainAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := brokertest.NewMemory(brokertest.MemoryConfig{AckTimeout: time.Second})
		m.Publish(broker.Message{Body: []byte("a")}, broker.Message{Body: []byte("b")})
		f := m.Fetcher()
		msgs := fetch(t, f, 2)
		time.Sleep(900 * time.Millisecond)
		if err := msgs[0].Extend(t.Context()); err != nil {
			t.Errorf("Extend before the timeout = %v, want nil", err)
		}
		time.Sleep(200 * time.Millisecond)
		wantCounts(t, m, brokertest.Counts{Ready: 1, Unacked: 1})
		for name, settle := range map[string]func() error{
			"Ack": func() error { return msgs[1].Ack(t.Context()) }, "Extend": func() error { return msgs[1].Extend(t.Context()) },
		} {
			if err := settle(); !errors.Is(err, broker.ErrSettled) {
				t.Errorf("%s after the timeout = %v, want %v", name, err, broker.ErrSettled)
			}
		}
		again := fetch(t, m.Fetcher(), 1)[0]
		if string(again.Body) != "b" || again.Attempt != 2 || again.ID != msgs[1].ID {
			t.Errorf("delivered again: %q, attempt %d, ID %s; want b, 2, %s", again.Body, again.Attempt, again.ID, msgs[1].ID)
		}
		for _, msg := range []*broker.Message{msgs[0], again} {
			if err := msg.Ack(t.Context()); err != nil {
				t.Errorf("Ack = %v, want nil", err)
			}
		}
		time.Sleep(time.Hour) // no timer is left that gives them back
		wantCounts(t, m, brokertest.Counts{Misuse: 1})
	})
}

func TestMemoryFetchWaitsForAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := brokertest.NewMemory(brokertest.MemoryConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f := m.Fetcher()
		if msgs, err := f.Fetch(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || len(msgs) > 0 {
			t.Errorf("Fetch of an empty queue = %d messages, %v; want none, %v", len(msgs), err, context.DeadlineExceeded)
		}
		time.AfterFunc(time.Hour, func() { m.Publish(broker.Message{Key: "k", Attributes: map[string]string{"a": "b"}}) })
		msgs, err := f.Fetch(t.Context(), 5)
		if err != nil || len(msgs) != 1 || msgs[0].Key != "k" || msgs[0].Attributes["a"] != "b" || msgs[0].Attempt != 1 {
			t.Errorf("Fetch = %v, %v; want the message that was published", msgs, err)
		}
		if msgs, err := f.Fetch(t.Context(), 0); len(msgs) != 0 || err != nil {
			t.Errorf("Fetch(0) = %v, %v; want nothing at once", msgs, err)
		}
	})
}

func TestMemoryFetcherGivesBackWhenClosed(t *testing.T) {
	m := brokertest.NewMemory(brokertest.MemoryConfig{})
	for range 4 {
		m.Publish(broker.Message{})
	}
	one, two := m.Fetcher(), m.Fetcher()
	fetch(t, one, 2)
	kept := fetch(t, two, 1)
	if err := one.Close(t.Context()); err != nil {
		t.Errorf("Close = %v, want nil", err)
	}
	wantCounts(t, m, brokertest.Counts{Ready: 3, Unacked: 1})
	if err := kept[0].Ack(t.Context()); err != nil {
		t.Errorf("Ack of the other fetcher's message = %v, want nil", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	msg := fetch(t, two, 1)[0]
	if err := msg.Ack(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Ack with a canceled context = %v, want %v", err, context.Canceled)
	}
	wantCounts(t, m, brokertest.Counts{Ready: 2, Unacked: 1})
}

// Any order of deliveries, settlements, timeouts and closed fetchers keeps each message in
// one place.
func TestMemoryKeepsEachMessageOnce(t *testing.T) {
	steps := rapid.SliceOf(rapid.SampledFrom([]string{"publish", "publish", "fetch", "fetch", "ack", "requeue", "dead", "extend", "wait", "close"}))
	rapid.Check(t, func(r *rapid.T) {
		script, picks := steps.Draw(r, "script"), rapid.Uint64().Draw(r, "picks")
		synctest.Test(t, func(t *testing.T) {
			k := keeper{m: brokertest.NewMemory(brokertest.MemoryConfig{AckTimeout: time.Second}), picks: rand.New(rand.NewPCG(picks, 0))}
			k.f = k.m.Fetcher()
			for i, step := range script {
				k.do(t, step)
				c := k.m.Counts()
				if got := c.Ready + c.Unacked + k.acked + len(k.m.DeadLetters()); got != k.published {
					t.Errorf("after step %d of %v: %+v, %d acknowledged, %d dead; want %d in all", i, script, c, k.acked, len(k.m.DeadLetters()), k.published)
				}
			}
		})
		if t.Failed() {
			r.FailNow()
		}
	})
}

// A keeper keeps books of a Memory.
type keeper struct {
	m                *brokertest.Memory
	f                broker.Fetcher
	picks            *rand.Rand
	held             []*broker.Message
	published, acked int
}

func (k *keeper) do(t *testing.T, step string) {
	var m *broker.Message
	if len(k.held) > 0 {
		m = k.held[k.picks.IntN(len(k.held))]
	}
	switch {
	case step == "publish":
		k.m.Publish(broker.Message{})
		k.published++
	case step == "fetch" && k.m.Counts().Ready > 0:
		msgs, err := k.f.Fetch(t.Context(), 2)
		if err != nil {
			t.Error(err)
		}
		k.held = append(k.held, msgs...)
	case step == "wait":
		time.Sleep(400 * time.Millisecond)
		synctest.Wait()
	case step == "close":
		_ = k.f.Close(t.Context())
		k.f = k.m.Fetcher()
	case m == nil:
	case step == "ack":
		if m.Ack(t.Context()) == nil {
			k.acked++
		}
	case step == "requeue":
		_ = m.Nack(t.Context(), broker.Requeue())
	case step == "dead":
		_ = m.Nack(t.Context(), broker.DeadLetter("r"))
	case step == "extend":
		_ = m.Extend(t.Context())
	}
}

func TestMemoryServesASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := brokertest.NewMemory(brokertest.MemoryConfig{AckTimeout: time.Minute})
		source, err := broker.NewSource(m.Fetcher(), broker.SourceConfig{ExtendEvery: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := m.Fetches(); n != 0 {
			t.Errorf("%d fetches without demand, want 0", n)
		}
		source.Request(3)
		time.Sleep(time.Hour)
		if n := m.Fetches(); n != 1 {
			t.Errorf("%d fetches of an empty queue in an hour, want 1", n)
		}
		m.Publish(broker.Message{}, broker.Message{}, broker.Message{}, broker.Message{})
		msg, err := source.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // the source extends
		wantCounts(t, m, brokertest.Counts{Ready: 1, Unacked: 3})
		if err := msg.Ack(t.Context()); err != nil {
			t.Errorf("Ack = %v, want nil", err)
		}
		if err := source.Close(t.Context()); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
		wantCounts(t, m, brokertest.Counts{Ready: 3})
		if _, err := source.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("Next after Close = %v, want io.EOF", err)
		}
	})
}
