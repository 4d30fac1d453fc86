package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
)

// An acknowledgement that lowers the demand returns when the broker has read it.
func TestFallingDemandIsExact(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		const n = 40
		mustPublish(t, s, queue, numbered(2*n)...)
		source := open(t, s, queue)
		source.Request(n)
		msgs := make([]*broker.Message, n)
		for i := range msgs {
			msgs[i] = next(t, source)
		}
		for i, m := range msgs {
			ack(t, m)
			if got, most := s.count.Unacked(queue), n-i-1; got > most {
				t.Fatalf("after %d of %d acknowledgements the broker counts %d unacknowledged messages, want at most %d", i+1, n, got, most)
			}
		}
		if got := s.count.Consumes(queue); got > 3 {
			t.Errorf("%d consumers were started, want at most 3", got)
		}
	})
}

// Demand that grows while messages are held is met, in the order of the queue.
func TestGrowingDemandIsMet(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		const n = 60
		mustPublish(t, s, queue, numbered(n)...)
		source := open(t, s, queue)
		var held []*broker.Message
		for len(held) < n {
			more := min(1+len(held)/3, n-len(held))
			source.Request(more)
			for range more {
				m := next(t, source)
				if got, want := string(m.Body), fmt.Sprint(len(held)); got != want {
					t.Fatalf("message %d: got %q, want %q", len(held), got, want)
				}
				held = append(held, m)
			}
			if got := s.count.Unacked(queue); got != len(held) {
				t.Fatalf("the broker counts %d unacknowledged messages, want %d", got, len(held))
			}
		}
		ack(t, held...)
	})
}

// Workers whose number changes all the time consume everything, and the broker is watched
// without a pause.
func TestDemandHolds(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		const n = 400
		mustPublish(t, s, queue, numbered(n)...)
		source := open(t, s, queue)
		h := &hammer{source: source, want: n, seen: map[string]bool{}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var work sync.WaitGroup
		for range 12 {
			work.Go(func() { h.work(ctx, t, cancel) })
		}
		for ctx.Err() == nil {
			settled := h.settled.Load()
			unacked := s.count.Unacked(queue)
			if most := int(h.requested.Load() - settled); unacked > most {
				t.Errorf("the broker counts %d unacknowledged messages, want at most %d", unacked, most)
				cancel()
			}
		}
		work.Wait()
		if len(h.seen) != n {
			t.Errorf("%d of %d messages were acknowledged", len(h.seen), n)
		}
		if got := s.count.Misuse(queue); got != 0 {
			t.Errorf("the broker has refused %d settlements", got)
		}
	})
}

// A hammer is a number of workers that request, settle, give back and pause at random.
type hammer struct {
	source             broker.Source
	requested, settled atomic.Int64
	want               int

	mu   sync.Mutex // guards seen
	seen map[string]bool
}

func (h *hammer) work(ctx context.Context, t *testing.T, done func()) {
	for ctx.Err() == nil {
		batch := 1 + rand.IntN(6)
		h.request(batch)
		for range batch {
			m, err := h.source.Next(ctx)
			if err != nil {
				return
			}
			switch rand.IntN(8) {
			case 0:
				err = m.Nack(ctx, broker.Requeue())
				h.request(1) // one more must be taken in its stead
				if err == nil {
					h.settled.Add(1)
				}
				m, err = h.source.Next(ctx)
				if err != nil {
					return
				}
				err = m.Ack(ctx)
			case 1:
				h.request(1)
				err = m.Ack(ctx)
				if err == nil {
					h.note(m, done)
				}
				h.settled.Add(1)
				m, err = h.source.Next(ctx)
				if err != nil {
					return
				}
				err = m.Ack(ctx)
			default:
				err = m.Ack(ctx)
			}
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("settle %s: %v", m.ID, err)
				}
				return
			}
			h.settled.Add(1)
			h.note(m, done)
		}
	}
}

func (h *hammer) request(n int) {
	h.requested.Add(int64(n))
	h.source.Request(n)
}

func (h *hammer) note(m *broker.Message, done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[string(m.Body)] = true
	if len(h.seen) == h.want {
		done()
	}
}

// A delivery that the client drops is given back when the next one arrives.
func TestDroppedDeliveriesComeAgain(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		const n = 20
		mustPublish(t, s, queue, numbered(n)...)
		source := open(t, s, queue)
		s.count.Stray(3)
		source.Request(5)
		seen := map[string]bool{}
		for len(seen) < n {
			m := next(t, source)
			seen[string(m.Body)] = true
			source.Request(1)
			ack(t, m)
		}
	})
}
