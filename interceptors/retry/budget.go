package retry

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/weir-go/weir/interceptors/internal/places"
)

// BudgetStats is an estimate of the retry budget of a target; see [Config].
type BudgetStats struct {
	// Target is the target of the connection. If several connections have it, these are the
	// numbers of the one with the fewest tokens.
	Target string
	// Tokens is the estimate. gRPC retries while it has more than half of Max, which is
	// Config.BudgetTokens.
	Tokens, Max float64
}

// Budgets returns an estimate of the retry budget of each target with open connections, in the
// order of their names. It leaves out connections without a [Config], and those whose resolver
// has replaced the retry policy, because their budget is not known. gRPC keeps its own count
// private, and refills it with each result of a resolver. Budgets learns of that when gRPC
// retries, and has too few tokens until then.
func (m *Meter) Budgets() []BudgetStats {
	if m.isZero() {
		return nil
	}
	fewest := map[string]BudgetStats{}
	for cc, b := range m.budgets.open() {
		if b.foreign.Load() {
			continue
		}
		s := BudgetStats{cc.CanonicalTarget(), b.estimate(), b.most}
		if !utf8.ValidString(s.Target) {
			s.Target = places.Rest
		}
		if other, ok := fewest[s.Target]; !ok || s.Tokens < other.Tokens {
			fewest[s.Target] = s
		}
	}
	return slices.SortedFunc(maps.Values(fewest), func(a, b BudgetStats) int { return cmp.Compare(a.Target, b.Target) })
}

// A budget follows the retry budget of a connection. It does the same sums as gRPC, from what
// gRPC shows of its calls.
type budget struct {
	most, ratio float64
	foreign     atomic.Bool // the resolver has replaced the policy, and the budget with it

	mu     sync.Mutex // guards tokens
	tokens float64
}

// trust notes whether gRPC uses the policy of the program.
func (b *budget) trust(own bool) {
	if b != nil && b.foreign.Load() == own {
		b.foreign.Store(!own)
	}
}

func (b *budget) estimate() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tokens
}

// The ways in which a call or an attempt changes a budget.
const (
	succeeded = iota // a call succeeds
	failed           // an attempt fails and is not retried
	retried          // an attempt fails and is retried, so gRPC has more than half left
)

// count notes how a call or an attempt ended.
func (b *budget) count(how int) {
	if b == nil {
		return
	}
	by, least := -1.0, 0.0
	switch how {
	case succeeded:
		by = b.ratio
	case retried:
		least = b.most / 2
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(max(b.tokens+by, least), b.most)
}

// budgets holds the budget of each connection. To find one takes no lock.
type budgets struct {
	found atomic.Pointer[map[*grpc.ClientConn]*budget] // replaced, never changed
	mu    sync.Mutex                                   // held while found is replaced
}

// of returns the budget of a connection. It is nil for closed connections, and if there are too
// many.
func (all *budgets) of(cc *grpc.ClientConn, c *Config) *budget {
	if found := all.found.Load(); found != nil {
		if b, ok := (*found)[cc]; ok {
			return b
		}
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	open := all.openLocked()
	b, ok := open[cc]
	if !ok && len(open) < places.Max && cc.GetState() != connectivity.Shutdown {
		most := float64(c.BudgetTokens)
		b = &budget{most: most, ratio: c.BudgetRatio, tokens: most}
		open[cc] = b
	}
	all.found.Store(&open)
	return b
}

// open returns the budgets of open connections, and forgets the others.
func (all *budgets) open() map[*grpc.ClientConn]*budget {
	all.mu.Lock()
	defer all.mu.Unlock()
	open := all.openLocked()
	all.found.Store(&open)
	return open
}

func (all *budgets) openLocked() map[*grpc.ClientConn]*budget {
	open := map[*grpc.ClientConn]*budget{}
	if found := all.found.Load(); found != nil {
		for cc, b := range *found {
			if cc.GetState() != connectivity.Shutdown {
				open[cc] = b
			}
		}
	}
	return open
}
