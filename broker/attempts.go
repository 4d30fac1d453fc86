package broker

import "sync"

// maxCounted bounds the number of messages with a count here.
const maxCounted = 4096

// attempts counts the failed attempts of messages that were given back, for brokers that do
// not count. It holds a bounded number of messages and forgets the oldest. It is safe for
// concurrent use.
type attempts struct {
	mu     sync.Mutex // guards the fields below
	failed map[string]int
	order  []string // IDs in the order in which they were first counted, some of them forgotten
}

// of returns the number of failed attempts of a message.
func (a *attempts) of(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed[id]
}

// set remembers the number of failed attempts.
func (a *attempts) set(id string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil {
		a.failed = map[string]int{}
	}
	if _, known := a.failed[id]; !known {
		a.order = append(a.order, id)
	}
	a.failed[id] = n
	for len(a.failed) > maxCounted || len(a.order) > 2*maxCounted {
		delete(a.failed, a.order[0])
		a.order = a.order[1:]
	}
}

// forget removes a message that is settled for good.
func (a *attempts) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.failed, id)
}
