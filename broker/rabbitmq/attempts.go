package rabbitmq

import (
	"hash/maphash"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxAttempts bounds how many messages attempts remembers.
const maxAttempts = 10000

// attempts counts how often this process has given back a message. Quorum queues count
// deliveries by themselves. Classic queues only tell that a message was delivered before.
type attempts struct {
	mu    sync.Mutex
	seed  maphash.Seed
	count map[uint64]int // by identity
}

// of returns the number of a delivery of its message, from 1.
func (a *attempts) of(d *amqp.Delivery) int {
	n := 0
	switch v := d.Headers["x-delivery-count"].(type) {
	case int64:
		n = int(v)
	case int32:
		n = int(v)
	}
	if d.Redelivered {
		n = max(n, 1, a.known(d))
	}
	return n + 1
}

func (a *attempts) known(d *amqp.Delivery) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.count) == 0 {
		return 0
	}
	return a.count[a.identity(d)]
}

// note counts a delivery that is given back.
func (a *attempts) note(d *amqp.Delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == nil {
		a.seed, a.count = maphash.MakeSeed(), map[uint64]int{}
	}
	id := a.identity(d)
	if _, ok := a.count[id]; !ok && len(a.count) >= maxAttempts {
		for other := range a.count {
			delete(a.count, other)
			break
		}
	}
	a.count[id]++
}

// forget removes a message that was consumed or set aside.
func (a *attempts) forget(d *amqp.Delivery) {
	if !d.Redelivered {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.count) > 0 {
		delete(a.count, a.identity(d))
	}
}

// identity tells messages apart, by their ID if they have one. Messages without ID and with
// the same content share a count. The caller holds the lock.
func (a *attempts) identity(d *amqp.Delivery) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	for _, part := range []string{d.MessageId, d.Exchange, d.RoutingKey, d.CorrelationId, d.Type} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	if d.MessageId == "" {
		_, _ = h.Write(d.Body)
	}
	return h.Sum64()
}
