package streamcredit

import (
	"sync"
	"time"
)

// BudgetConfig bounds what the receivers that share a [Budget] hold together. At
// least one of Bytes and Messages is needed.
type BudgetConfig struct {
	// Bytes bounds the payload, in bytes, of what was asked for and is not yet
	// consumed. Go's heap takes more: for small messages several times as much.
	// Zero: no bound.
	Bytes int64
	// Messages bounds the number of elements that were asked for and are not yet
	// consumed. Zero: no bound.
	Messages int64
	// ElementBytes is what an element is taken to weigh before one has been seen, and what
	// is kept for a stream that has nothing. Default 16 KiB. Bytes may be exceeded where
	// elements are larger, by one of each stream, and where they become larger all of
	// a sudden, by what was asked for while they were small: a byte window bounds that.
	ElementBytes int64
	// ReclaimAfter is how long credit may lie unused while others want some,
	// before it is taken back. Default 1 s. The sender must know FEATURE_DRAIN.
	ReclaimAfter time.Duration
	// Pressure, if not nil, shrinks the budget while the process is close to its end. Level 1
	// leaves a half, level 2 a quarter, and level 3 one element for each stream. Credit that
	// was already requested is not taken back. The budget grows back within 100 ms.
	Pressure Pressure
}

// A Budget is one bound for the memory of many receivers; see [WithBudget]. Every stream
// can have one element at any time: a quarter of the budget is kept for that at least, and
// a new stream for which there is no place is refused with RESOURCE_EXHAUSTED,
// BUDGET_EXHAUSTED. Of the rest a stream may take up to as much as is free after it has taken it, so that a
// few streams get much and many get equal shares (dynamic thresholds: Choudhury and
// Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, section III). What the handler of a
// call that has ended has not received yet does not count. Safe for concurrent use.
type Budget struct {
	config BudgetConfig

	mu        sync.Mutex // guards what follows; a receiver's lock may be held around it
	accounts  map[*account]struct{}
	bytes     int64 // of all accounts
	messages  int64
	idle      int64 // accounts that have nothing, and may have one element at any time
	wanting   int   // accounts that want more than they got
	retrying  bool  // those who want more will be asked soon
	relieving bool  // an offer is scheduled, because of pressure
	sweeping  bool  // idle credit will be looked for
}

// NewBudget returns a budget, and an error that says what is wrong with c.
func NewBudget(c BudgetConfig) (*Budget, error) {
	if c.Bytes < 0 || c.Messages < 0 || c.ElementBytes < 0 || c.ReclaimAfter < 0 || c.Bytes == 0 && c.Messages == 0 {
		return nil, invalid("got budget %+v, want Bytes or Messages positive, and nothing negative", c)
	}
	if c.ElementBytes == 0 {
		c.ElementBytes = 16 << 10
	}
	if c.ReclaimAfter == 0 {
		c.ReclaimAfter = time.Second
	}
	if c.Bytes > 0 && c.ElementBytes > c.Bytes {
		return nil, invalid("got ElementBytes %d, want at most Bytes (%d): no stream could have one element", c.ElementBytes, c.Bytes)
	}
	c.Bytes, c.Messages = min(c.Bytes, mostBytes), min(c.Messages, mostMessages)
	return &Budget{config: c, accounts: map[*account]struct{}{}}, nil
}

// More than that is as good as no bound, and sums are safe.
const (
	mostBytes    = 1 << 44 // 16 TiB
	mostMessages = 1 << 31
)

// BudgetStats is what a budget has given away.
type BudgetStats struct {
	// Streams is how many receivers share it.
	Streams int
	// Bytes and Messages are what they hold or have asked for. What was asked for
	// and is not here yet is weighed as the heaviest element of its stream.
	Bytes, Messages int64
}

// Stats returns the state of the budget. It does not block.
func (b *Budget) Stats() BudgetStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BudgetStats{Streams: len(b.accounts), Bytes: b.bytes, Messages: b.messages}
}

// An account is what one receiver has of a budget. Its methods do nothing on nil,
// which is the account of a receiver without a budget. They are called with the
// receiver's lock held, and so never call back.
type account struct {
	budget  *Budget
	retry   func() // has the receiver ask again; called without locks
	reclaim func() // has the receiver give back idle credit; likewise

	// Guarded by budget.mu:
	credit int64 // elements asked for that have not arrived
	held   int64 // elements that have
	bytes  int64 // their weight
	weight int64 // of the heaviest element that was seen, at least 1
	wants  bool  // it got less than it asked for
	known  bool  // an element was seen
	quiet  int   // sweeps since one has arrived
	closed bool  // the stream has ended; what it holds still counts
}

// open returns an account, and an error where there is no place for one more.
func (b *Budget) open(retry, reclaim func()) (*account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entitled := b.idle + 1 // to one element each, this one included
	if b.config.Messages > 0 && b.messages+entitled > b.config.Messages ||
		b.config.Bytes > 0 && b.bytes+entitled*b.config.ElementBytes > b.config.Bytes {
		return nil, violation(BudgetExhausted, "a budget with room for one more stream",
			"%d streams, with %d bytes and %d messages in use, in one of %d bytes and %d messages",
			len(b.accounts), b.bytes, b.messages, b.config.Bytes, b.config.Messages)
	}
	b.idle++
	a := &account{budget: b, retry: retry, reclaim: reclaim, weight: b.config.ElementBytes}
	b.accounts[a] = struct{}{}
	return a, nil
}

// kept is the part of a budget that is kept for one element of each stream.
func kept(budget int64) int64 { return (budget + 3) / 4 }

// loadLocked returns the bytes that the account has, those that it may still get included.
func (a *account) loadLocked() int64 {
	if a.credit > mostBytes/a.weight {
		return mostBytes + a.bytes
	}
	return a.credit*a.weight + a.bytes
}

// addLocked changes what the account has.
func (a *account) addLocked(credit, held, bytes int64) {
	before, idle := a.loadLocked(), a.credit+a.held == 0
	a.credit += credit
	a.held += held
	a.bytes += bytes
	a.budget.messages += credit + held
	a.budget.bytes += a.loadLocked() - before
	switch now := a.credit+a.held == 0; {
	case a.closed:
	case idle && !now:
		a.budget.idle--
	case now && !idle:
		a.budget.idle++
	}
}

// Take asks for n elements more and returns how many it gets.
func (a *account) Take(n int64) int64 {
	if a == nil {
		return n
	}
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	got := n
	bytes, messages, pressed := b.boundsLocked()
	if messages > 0 {
		got = min(got, (messages-kept(messages)-b.messages-a.credit-a.held)/2)
	}
	if bytes > 0 {
		got = min(got, (bytes-kept(bytes)-b.bytes-a.loadLocked())/(2*a.weight))
	}
	if got < 1 && a.credit+a.held == 0 {
		got = 1
	}
	got = max(0, got)
	a.wantLocked(got < n)
	a.addLocked(got, 0, 0)
	if pressed {
		b.relieveLocked()
	}
	return got
}

// Arrived exchanges a credit for an element of size bytes.
func (a *account) Arrived(size int64) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	credit := min(1, a.credit) // none is left of an account that is closed
	a.addLocked(-credit, 1, size)
	a.weighLocked(size)
	if a.quiet = 0; a.wants {
		a.budget.sweepLocked()
	}
}

// weighLocked follows the heaviest element: up at once, and down slowly.
func (a *account) weighLocked(size int64) {
	before := a.loadLocked()
	if a.known && size < a.weight {
		size = a.weight - (a.weight-size)/16
	}
	a.weight, a.known = max(1, size), true
	a.budget.bytes += a.loadLocked() - before
}

// Consumed gives back what n elements of bytes together took.
func (a *account) Consumed(n, bytes int64) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.addLocked(0, -n, -bytes)
	a.budget.retryLocked()
}

// Burned gives back n credits.
func (a *account) Burned(n int64) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.addLocked(-min(n, a.credit), 0, 0)
	a.budget.retryLocked()
}

// Close gives back all credit. What has arrived counts until it is consumed.
func (a *account) Close() {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.addLocked(-a.credit, 0, 0)
	a.wantLocked(false)
	if !a.closed && a.credit+a.held == 0 {
		a.budget.idle--
	}
	a.closed = true
	delete(a.budget.accounts, a)
	a.budget.retryLocked()
}

// Want notes whether the account wants more, and sees to it that it is asked then.
func (a *account) Want(more bool) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.wantLocked(more && !a.closed)
	if more {
		a.budget.retryLocked()
	}
}

// retryAfter is how long the budget gathers what is given back before it offers it
// to those who want more.
const retryAfter = time.Millisecond

// retryLocked sees to it that those who want more are asked.
func (b *Budget) retryLocked() {
	if !b.retrying && b.wanting > 0 {
		b.retrying = true
		time.AfterFunc(retryAfter, b.offer)
	}
}

// sweepLocked sees to it that idle credit is reclaimed.
func (b *Budget) sweepLocked() {
	if !b.sweeping {
		b.sweeping = true
		time.AfterFunc(b.config.ReclaimAfter, b.sweep)
	}
}

// wantLocked notes whether the account got less than it asked for.
func (a *account) wantLocked(wants bool) {
	switch {
	case wants && !a.wants:
		a.budget.wanting++
	case !wants && a.wants:
		a.budget.wanting--
	}
	a.wants = wants
}

// offer has those who want more ask again. They start in no order of their own.
func (b *Budget) offer() {
	b.mu.Lock()
	b.retrying = false
	var wanting []*account
	for a := range b.accounts {
		if a.wants {
			wanting = append(wanting, a)
		}
	}
	b.mu.Unlock()
	for _, a := range wanting {
		a.retry()
	}
}

// patience is after how many sweeps one who gets nothing does not count as wanting more.
const patience = 3

// sweep takes idle credit back, for as long as somebody uses what he gets and wants more.
func (b *Budget) sweep() {
	b.mu.Lock()
	b.sweeping = false
	var idle []*account
	needed := false
	for a := range b.accounts {
		if a.credit > 1 && a.quiet > 0 {
			idle = append(idle, a)
		}
		needed = needed || a.wants && a.quiet < patience
		a.quiet++
	}
	if needed {
		b.sweepLocked()
	} else {
		idle = nil
	}
	b.mu.Unlock()
	for _, a := range idle {
		a.reclaim()
	}
}
