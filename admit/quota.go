package admit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// A Rate bounds how many permits are given out in a time. Calls that cost more count
// for more.
type Rate struct {
	// PerSecond is how many permits are given out a second in the long run, more than
	// 0 and at most a billion. A fraction is fine: 0.1 is one call in ten seconds.
	PerSecond float64
	// Burst is how many may be given out at once after a quiet time. Zero means what
	// PerSecond allows in one second, and at least 1. A call that costs more than Burst
	// takes all of it.
	Burst int
}

// A QuotaConfig bounds how often calls may run, whatever room the gate has. The zero
// value bounds nothing.
type QuotaConfig struct {
	// Classes bounds the calls of a class, all of them together.
	Classes map[Class]Rate
	// Tenant bounds the calls of each tenant, of all classes together. The zero Rate is
	// no bound. Calls without a tenant are not bounded by it.
	Tenant Rate
	// Tenants holds the rates of tenants that Tenant does not suit.
	Tenants map[string]Rate
	// MaxTenants is how many tenants are told apart at a time; default 131072, from 1
	// to 16 million. Each takes some 300 bytes until it has its whole Burst again, and
	// is forgotten only then, so that nobody gets a new Burst by making the gate forget
	// the old one. Tenants beyond share 4096 more allowances like those of Tenant.
	MaxTenants int
}

const (
	defaultTenants = 1 << 17
	mostTenants    = 1 << 24
	mostPerSecond  = 1e9
	mostBurst      = 1 << 30
)

// WithQuotas bounds how often calls may run: see [QuotaConfig]. A call over its quota is
// refused with [OverQuota] and the delay until it may run, and takes neither a permit nor
// a place in the queue. A call counts when it gets its permit: one that is refused, that
// times out or leaves before that costs nothing. In [Gate.Update] it replaces all quotas;
// what was used up stays used up, and the zero QuotaConfig removes them. A gate with
// quotas takes one more lock for each call.
func WithQuotas(q QuotaConfig) Option {
	q.Classes, q.Tenants = maps.Clone(q.Classes), maps.Clone(q.Tenants)
	return option(func(c *config) { c.quotas = q })
}

// none reports whether nothing is bounded.
func (q *QuotaConfig) none() bool {
	return len(q.Classes) == 0 && len(q.Tenants) == 0 && q.Tenant == Rate{}
}

// burst returns Burst or its default.
func (r Rate) burst() int {
	return cmp.Or(r.Burst, max(1, int(math.Ceil(min(r.PerSecond, mostBurst)))))
}

func (r Rate) validate(what string) (errs []error) {
	if !(r.PerSecond > 0 && r.PerSecond <= mostPerSecond) { // nor NaN
		errs = append(errs, fmt.Errorf("%s: got a rate of %v a second, want more than 0 and at most %v",
			what, r.PerSecond, float64(mostPerSecond)))
	}
	if r.Burst < 0 || r.Burst > mostBurst {
		errs = append(errs, fmt.Errorf("%s: got a burst of %d, want 0 (automatic) to %d", what, r.Burst, mostBurst))
	}
	return errs
}

func (q *QuotaConfig) validate(classes *classTable) (errs []error) {
	for _, c := range slices.Sorted(maps.Keys(q.Classes)) {
		what := fmt.Sprintf("quota of class %d", c)
		if c >= MaxClasses || !classes.known[c] {
			errs = append(errs, fmt.Errorf("%s: got a class that the gate does not have, want one of %s", what, classes.list()))
		}
		errs = append(errs, q.Classes[c].validate(what)...)
	}
	if q.Tenant != (Rate{}) {
		errs = append(errs, q.Tenant.validate("quota of each tenant")...)
	}
	for _, key := range slices.Sorted(maps.Keys(q.Tenants)) {
		what := fmt.Sprintf("quota of tenant %q", key)
		if key == "" {
			errs = append(errs, fmt.Errorf("%s: got an empty name, want a tenant's", what))
		}
		errs = append(errs, q.Tenants[key].validate(what)...)
	}
	if q.MaxTenants < 0 || q.MaxTenants > mostTenants {
		errs = append(errs, fmt.Errorf("quotas: got MaxTenants %d, want 0 (%d) to %d", q.MaxTenants, defaultTenants, mostTenants))
	}
	return errs
}

// settleQuotasLocked makes the quotas those of the configuration. The gate's lock is
// held, or nobody else has the gate yet.
func (g *Gate) settleQuotasLocked() {
	old := g.quotas.Load()
	if g.cfg.quotas.none() {
		g.quotas.Store(nil)
		return
	}
	g.quotas.Store(newQuotas(&g.cfg, old, time.Now()))
}

// A quotaState says what the quotas have said of a call.
type quotaState uint8

const (
	notAsked  quotaState = iota
	within               // it may run
	wouldFail            // it is over its quota, in a dry run, and counted as refused
)

// acquireWithin is Acquire for a gate with quotas.
func (g *Gate) acquireWithin(ctx context.Context, c Call, q *quotas) (permit Permit, err error) {
	spent, delay := q.take(c, time.Now())
	if delay > 0 {
		_, refusal, dry := g.overQuota(c)
		switch {
		case refusal != nil:
			return Permit{}, refusal
		case !dry:
			return Permit{}, q.refusals.after(delay, q.gate)
		}
		c.quota = wouldFail
		return g.Acquire(ctx, c)
	}
	c.quota = within
	ran := false
	defer func() { q.settle(&spent, ran) }() // also when a hook ends the goroutine, which frees the permit
	permit, err = g.Acquire(ctx, c)
	ran = err == nil
	return
}

// overQuota counts a call over its quota, and says why it is refused. In a dry run it is
// not. If the gate is draining another server may take the call, and refusal says so.
func (g *Gate) overQuota(c Call) (why Reason, refusal *Refusal, dry bool) {
	g.mu.Lock()
	class, hooks := g.cfg.classes.class(c.Class), g.cfg.hooks
	why, dry = OverQuota, g.cfg.dryRun
	if g.draining {
		why, refusal, dry = Draining, g.refusalLocked(Draining), false
	}
	g.totals.refused[class][why]++
	g.mu.Unlock()
	g.tellRefused(hooks, class, why, 0)
	return why, refusal, dry
}

// list names the classes.
func (t *classTable) list() string {
	var names []string
	for _, c := range t.order[:t.n] {
		names = append(names, fmt.Sprintf("%d (%s)", c, t.set[c].Name))
	}
	return strings.Join(names, ", ")
}

// errZeroGate is what a Gate that New did not make answers.
var errZeroGate = fmt.Errorf("%w: got a zero Gate, want one from New", ErrConfig)
