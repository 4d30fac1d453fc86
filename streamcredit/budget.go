package streamcredit

import (
	"cmp"
	"sync"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// BudgetConfig bounds the elements of all receivers that share a [Budget]. At least one of Bytes
// and Messages is needed.
type BudgetConfig struct {
	// Bytes bounds the payload, in bytes, of elements that are requested and not yet consumed.
	// The Go heap takes more, for small messages several times as much. Zero means no bound.
	Bytes int64
	// Messages bounds the number of elements that are requested and not yet consumed. Zero means
	// no bound.
	Messages int64
	// ElementBytes is the assumed size of an element of a stream before one has arrived, and the
	// size reserved for a stream that holds nothing. Default 16 KiB, or Bytes if that is less.
	// Larger elements may exceed Bytes, by one element of each stream. If elements suddenly
	// become larger, Bytes may also be exceeded by the elements that were requested while they
	// were small. A byte window bounds that.
	ElementBytes int64
	// ReclaimAfter is how long credit may lie unused while other streams want more, before it is
	// reclaimed. Default 1 s. The sender must know FEATURE_DRAIN.
	ReclaimAfter time.Duration
	// Pressure, if not nil, shrinks the budget while the process is close to its end. Level 1
	// leaves a half, level 2 a quarter, and level 3 one element for each stream. Credit that
	// was already requested is not taken back. The budget grows back within 100 ms.
	Pressure Pressure
}

// A Budget bounds the memory of many receivers together; see [WithBudget]. Every stream can have
// one element at any time, and at least a quarter of the budget is reserved for that. A new
// stream is refused with RESOURCE_EXHAUSTED, BUDGET_EXHAUSTED if there is no room for its
// element. A stream may take at most half of the rest that is free. A few streams therefore get
// much, and many get equal shares (dynamic thresholds: Choudhury and Hahne,
// IEEE/ACM Transactions on Networking 6(2), 1998, section III). Elements that the handler of an
// ended call has not received do not count. Safe for concurrent use.
type Budget struct {
	config BudgetConfig

	mu        sync.Mutex // guards the fields below; a receiver's lock may be held around it
	accounts  map[*account]struct{}
	bytes     int64 // of all accounts
	messages  int64
	idle      int64 // accounts that hold nothing, and may have one element at any time
	wanting   int   // accounts that want more than they got
	retrying  bool  // a call of offer is scheduled
	relieving bool  // a call of offer is scheduled because of pressure
	sweeping  bool  // a call of sweep is scheduled
}

// NewBudget returns a budget, or an error that wraps ErrInvalid and names every mistake in c.
func NewBudget(c BudgetConfig) (*Budget, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Budget{config: c.withDefaults(), accounts: map[*account]struct{}{}}, nil
}

func (c BudgetConfig) validate() error {
	var bad check.Errors
	check.NotNegative(&bad, "Bytes", c.Bytes, "no bound")
	check.NotNegative(&bad, "Messages", c.Messages, "no bound")
	bad.That(c.Bytes != 0 || c.Messages != 0, "Bytes and Messages: got 0 for both, want at least one of them more than 0")
	check.NotNegative(&bad, "ElementBytes", c.ElementBytes, "the default")
	bad.That(c.Bytes <= 0 || c.ElementBytes <= c.Bytes,
		"ElementBytes: got %d, want at most Bytes (%d), or no stream could have one element", c.ElementBytes, c.Bytes)
	check.NotNegative(&bad, "ReclaimAfter", c.ReclaimAfter, defaultReclaim)
	return misused(bad)
}

func (c BudgetConfig) withDefaults() BudgetConfig {
	if c.ElementBytes == 0 {
		c.ElementBytes = defaultElement
		if c.Bytes > 0 {
			c.ElementBytes = min(c.ElementBytes, c.Bytes)
		}
	}
	c.ReclaimAfter = cmp.Or(c.ReclaimAfter, defaultReclaim)
	c.Bytes, c.Messages = min(c.Bytes, mostBytes), min(c.Messages, mostMessages)
	c.ElementBytes = min(c.ElementBytes, mostBytes)
	return c
}

// made reports whether NewBudget made the budget. A nil budget is none, and needs no making.
func (b *Budget) made() bool { return b == nil || b.accounts != nil }

// The defaults of a BudgetConfig.
const (
	defaultElement = 16 << 10
	defaultReclaim = time.Second
)

// Larger bounds are as good as none. These keep sums from overflowing.
const (
	mostBytes    = 1 << 44 // 16 TiB
	mostMessages = 1 << 31
)

// BudgetStats is a snapshot of a [Budget].
type BudgetStats struct {
	// Streams is the number of receivers that share the budget.
	Streams int
	// Bytes and Messages count the elements that these receivers hold or have requested. Each
	// element that has not arrived counts with the size of the heaviest element of its stream.
	Bytes, Messages int64
}

// Stats returns the state of the budget. It does not block.
func (b *Budget) Stats() BudgetStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BudgetStats{Streams: len(b.accounts), Bytes: b.bytes, Messages: b.messages}
}

// An account is one receiver's share of a budget. A nil account belongs to a receiver without a
// budget. On nil, Take grants everything and the other methods do nothing. All methods are called
// with the receiver's lock held, and so never call back.
type account struct {
	budget  *Budget
	retry   func() // makes the receiver request more; called without locks
	reclaim func() // makes the receiver give back idle credit; called without locks

	// The fields below are guarded by budget.mu.
	credit int64 // elements that were requested and have not arrived
	held   int64 // elements that have arrived and are not consumed
	bytes  int64 // their size
	weight int64 // size of the heaviest recent element, at least 1
	wants  bool  // it got less than it asked for
	known  bool  // an element has arrived
	quiet  int   // sweeps since the last arrival
	closed bool  // the stream has ended; elements that it holds still count
}

// open returns an account, or an error if there is no room for one more.
func (b *Budget) open(retry, reclaim func()) (*account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entitled := b.idle + 1 // accounts that may have one element each, with this one
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

// kept returns the part of a budget that is reserved for one element of each stream.
func kept(budget int64) int64 { return (budget + 3) / 4 }

// loadLocked returns the bytes of the account, with the elements that may still arrive.
func (a *account) loadLocked() int64 {
	if a.credit > mostBytes/a.weight {
		return mostBytes + a.bytes
	}
	return a.credit*a.weight + a.bytes
}

// addLocked changes the elements and bytes of the account.
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

// Take requests n more elements and returns how many are granted.
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
	credit := min(1, a.credit) // a closed account has none
	a.addLocked(-credit, 1, size)
	a.weighLocked(size)
	if a.quiet = 0; a.wants {
		a.budget.sweepLocked()
	}
}

// weighLocked follows the heaviest element. The weight rises at once and falls slowly.
func (a *account) weighLocked(size int64) {
	before := a.loadLocked()
	if a.known && size < a.weight {
		size = a.weight - (a.weight-size)/16
	}
	a.weight, a.known = max(1, size), true
	a.budget.bytes += a.loadLocked() - before
}

// Consumed releases n elements of bytes in total.
func (a *account) Consumed(n, bytes int64) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.addLocked(0, -n, -bytes)
	a.budget.retryLocked()
}

// Burned releases n unused credits.
func (a *account) Burned(n int64) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.addLocked(-min(n, a.credit), 0, 0)
	a.budget.retryLocked()
}

// Close releases all credit. Elements that have arrived count until they are consumed.
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

// Want records whether the account wants more. If it does, the budget asks it again soon.
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

// retryAfter is how long the budget collects released credit before it offers it to the accounts
// that want more.
const retryAfter = time.Millisecond

// retryLocked schedules an offer if an account wants more.
func (b *Budget) retryLocked() {
	if !b.retrying && b.wanting > 0 {
		b.retrying = true
		time.AfterFunc(retryAfter, b.offer)
	}
}

// sweepLocked schedules a sweep.
func (b *Budget) sweepLocked() {
	if !b.sweeping {
		b.sweeping = true
		time.AfterFunc(b.config.ReclaimAfter, b.sweep)
	}
}

// wantLocked records whether the account got less than it asked for.
func (a *account) wantLocked(wants bool) {
	switch {
	case wants && !a.wants:
		a.budget.wanting++
	case !wants && a.wants:
		a.budget.wanting--
	}
	a.wants = wants
}

// offer makes the accounts that want more ask again, in random order.
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

// patience is the number of sweeps without an arrival after which an account no longer counts as
// wanting.
const patience = 3

// sweep reclaims idle credit, as long as an account that uses its credit wants more.
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
