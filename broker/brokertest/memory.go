package brokertest

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/weir-go/weir/broker"
)

// A MemoryConfig configures a Memory.
type MemoryConfig struct {
	// AckTimeout is the time after which an unacknowledged message is delivered again. The
	// default is 0, which waits until its fetcher is closed.
	AckTimeout time.Duration
}

// A Memory is a broker with one queue and a dead letter queue in memory. All methods are
// safe for concurrent use. It starts no goroutine, so it needs no Close, and it works in a
// bubble of testing/synctest.
type Memory struct {
	config MemoryConfig

	mu       sync.Mutex // guards the fields below
	fresh    []*entry   // never delivered
	returned []*entry   // delivered and given back, and next in turn
	unacked  map[*delivery]struct{}
	dead     []DeadLetter
	misuse   int
	fetches  int64
	last     uint64
	arrived  chan struct{} // closed when a message becomes ready
}

// An entry is a message that is stored.
type entry struct {
	message  broker.Message
	attempts int
}

// NewMemory returns an empty broker.
func NewMemory(c MemoryConfig) *Memory {
	return &Memory{config: c, unacked: map[*delivery]struct{}{}, arrived: make(chan struct{})}
}

// Publish appends messages to the queue. ID and Attempt of a message are not used.
func (m *Memory) Publish(msgs ...broker.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range msgs {
		m.last++
		m.fresh = append(m.fresh, &entry{message: broker.Message{
			ID:  strconv.FormatUint(m.last, 10),
			Key: msgs[i].Key, Body: msgs[i].Body, Attributes: msgs[i].Attributes,
		}})
	}
	m.wakeLocked()
}

// Counts returns the state of the queue.
func (m *Memory) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Counts{Ready: len(m.fresh) + len(m.returned), Unacked: len(m.unacked), Misuse: m.misuse}
}

// DeadLetters returns the messages that were set aside, oldest first.
func (m *Memory) DeadLetters() []DeadLetter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]DeadLetter(nil), m.dead...)
}

// Fetches returns how many times fetchers were asked for messages.
func (m *Memory) Fetches() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches
}

// Fetcher returns a new connection to the broker, for broker.NewSource. Its Close gives
// back unacknowledged messages, as a broker does when a connection ends.
func (m *Memory) Fetcher() broker.Fetcher { return &memoryFetcher{m} }

func (m *Memory) wakeLocked() {
	close(m.arrived)
	m.arrived = make(chan struct{})
}

type memoryFetcher struct{ *Memory }

// Fetch implements broker.Fetcher.
func (f *memoryFetcher) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	f.mu.Lock()
	f.fetches++
	f.mu.Unlock()
	for n > 0 {
		f.mu.Lock()
		got, arrived := f.takeLocked(n), f.arrived
		f.mu.Unlock()
		if len(got) > 0 {
			return got, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (f *memoryFetcher) takeLocked(n int) (got []*broker.Message) {
	for len(got) < n {
		from := &f.returned
		if len(*from) == 0 {
			from = &f.fresh
		}
		if len(*from) == 0 {
			break
		}
		e := (*from)[0]
		(*from)[0] = nil
		*from = (*from)[1:]
		got = append(got, f.deliverLocked(e))
	}
	return got
}

func (f *memoryFetcher) deliverLocked(e *entry) *broker.Message {
	e.attempts++
	d := &delivery{fetcher: f, entry: e}
	if f.config.AckTimeout > 0 {
		d.timer = time.AfterFunc(f.config.AckTimeout, func() { d.expire() })
	}
	f.unacked[d] = struct{}{}
	message := e.message
	message.Attempt = e.attempts
	return broker.NewMessage(message, d)
}

// Close implements broker.Fetcher.
func (f *memoryFetcher) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for d := range f.unacked {
		if d.fetcher == f {
			d.giveBackLocked()
		}
	}
	return nil
}

// A delivery is a message that a fetcher has got. It implements broker.Settler.
type delivery struct {
	fetcher *memoryFetcher
	entry   *entry
	timer   *time.Timer // nil without a timeout
}

// Ack implements broker.Settler.
func (d *delivery) Ack(ctx context.Context) error { return d.settle(ctx, func() {}) }

// Requeue implements broker.Settler.
func (d *delivery) Requeue(ctx context.Context) error { return d.settle(ctx, d.returnLocked) }

// DeadLetter implements broker.Settler.
func (d *delivery) DeadLetter(ctx context.Context, reason string) error {
	return d.settle(ctx, func() {
		d.fetcher.dead = append(d.fetcher.dead, DeadLetter{Body: d.entry.message.Body, Reason: reason})
	})
}

// Extend implements broker.Settler.
func (d *delivery) Extend(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := d.fetcher.Memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, open := m.unacked[d]; !open {
		m.misuse++
		return broker.ErrSettled
	}
	if d.timer != nil {
		d.timer.Reset(m.config.AckTimeout)
	}
	return nil
}

// settle ends the delivery, and calls act with the lock held.
func (d *delivery) settle(ctx context.Context, act func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := d.fetcher.Memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if !d.endLocked() {
		m.misuse++
		return broker.ErrSettled
	}
	act()
	return nil
}

// expire gives the message back because its time is over.
func (d *delivery) expire() {
	m := d.fetcher.Memory
	m.mu.Lock()
	defer m.mu.Unlock()
	d.giveBackLocked()
}

func (d *delivery) giveBackLocked() {
	if d.endLocked() {
		d.returnLocked()
	}
}

// endLocked ends the delivery. It returns false if it was over before.
func (d *delivery) endLocked() bool {
	m := d.fetcher.Memory
	if _, open := m.unacked[d]; !open {
		return false
	}
	delete(m.unacked, d)
	if d.timer != nil {
		d.timer.Stop()
	}
	return true
}

func (d *delivery) returnLocked() {
	m := d.fetcher.Memory
	m.returned = append(m.returned, d.entry)
	m.wakeLocked()
}
