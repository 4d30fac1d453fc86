package admit

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/weir-go/weir/internal/check"
)

// A Rate bounds the permits per second. A call that costs more counts for more. The zero
// Rate means no bound where a field allows it.
type Rate struct {
	// PerSecond is the number of permits per second in the long run. It is more than 0
	// and at most a billion. A fraction is fine: 0.1 is one call in ten seconds.
	PerSecond float64
	// Burst is the number of permits that may be used at once after a quiet time. Zero
	// means PerSecond rounded up, and at least 1. A call that costs more than Burst takes
	// all of it.
	Burst int
}

// A QuotaConfig bounds calls per second, however many permits are free. The zero value
// bounds nothing.
type QuotaConfig struct {
	// Classes bounds all calls of a class together.
	Classes map[Class]Rate
	// Tenant bounds the calls of each tenant, over all classes. The zero Rate is no
	// bound. It does not bound calls without a tenant.
	Tenant Rate
	// Tenants bounds the calls of single tenants, in place of Tenant.
	Tenants map[string]Rate
	// MaxTenants is the number of tenants with a bucket of their own, from 1 to 16
	// million. Zero means 131072. A bucket takes some 300 bytes and is dropped once it
	// is full, so a tenant cannot get a new burst by making the gate forget the old one.
	// All further tenants share 4096 buckets of the rate Tenant.
	MaxTenants int
}

const (
	defaultTenants = 1 << 17
	mostTenants    = 1 << 24
	mostPerSecond  = 1e9
	mostBurst      = 1 << 30
)

// WithQuotas bounds calls per second. A call over its quota is refused because of
// [OverQuota], with the delay until it may run. It takes no permit and no place in the
// queue. A call counts when it gets its permit. A call that is refused or leaves before
// that costs nothing.
//
// In [Gate.Update] it replaces all quotas, and usage carries over. The zero QuotaConfig
// removes them. A gate with quotas takes one more lock for each call.
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

func (r Rate) validate(bad *check.Errors, what string) {
	bad.That(r.PerSecond > 0 && r.PerSecond <= mostPerSecond, // false for NaN
		"%s: got a rate of %v a second, want more than 0 and at most %v", what, r.PerSecond, float64(mostPerSecond))
	bad.That(r.Burst >= 0 && r.Burst <= mostBurst,
		"%s: got a burst of %d, want 0 (automatic) to %d", what, r.Burst, mostBurst)
}

func (q *QuotaConfig) validate(bad *check.Errors, classes *classTable) {
	for _, c := range slices.Sorted(maps.Keys(q.Classes)) {
		what := fmt.Sprintf("quota of class %d", c)
		bad.That(c < MaxClasses && classes.known[c],
			"%s: got a class that the gate does not have, want one of %s", what, classes.list())
		q.Classes[c].validate(bad, what)
	}
	if q.Tenant != (Rate{}) {
		q.Tenant.validate(bad, "quota of each tenant")
	}
	for _, key := range slices.Sorted(maps.Keys(q.Tenants)) {
		what := fmt.Sprintf("quota of tenant %q", key)
		bad.That(key != "", "%s: got an empty name, want a tenant's", what)
		q.Tenants[key].validate(bad, what)
	}
	bad.That(q.MaxTenants >= 0 && q.MaxTenants <= mostTenants,
		"quotas: got MaxTenants %d, want 0 (%d) to %d", q.MaxTenants, defaultTenants, mostTenants)
}
