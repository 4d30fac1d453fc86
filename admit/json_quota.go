package admit

import (
	"encoding/json"
	"maps"
)

// quotas reads quotas. A null removes a quota.
func (r *reader) quotas(n *node) Option {
	if n.token == nil {
		return WithQuotas(QuotaConfig{})
	}
	if !r.object(n, "classes", "tenant?", "tenants", "max_tenants") {
		return nil
	}
	var changes []func(*config, *QuotaConfig)
	change := func(f func(*config, *QuotaConfig)) { changes = append(changes, f) }
	if v := n.get("tenant"); v != nil {
		rate := r.rate(v)
		change(func(_ *config, q *QuotaConfig) { q.Tenant = rate(q.Tenant) })
	}
	r.each(n.get("classes"), func(name string, v *node) {
		rate := r.rate(v)
		change(func(c *config, q *QuotaConfig) {
			class, ok := c.classes.called(name)
			if !ok {
				c.bad.That(false, "%s: got a class that the gate does not have, want one of %s", v.where(), c.classes.list())
				return
			}
			setRate(q.Classes, class, rate(q.Classes[class]))
		})
	})
	r.each(n.get("tenants"), func(name string, v *node) {
		rate := r.rate(v)
		if name == "" {
			r.wrong(v, "got an empty name, want a tenant's")
		}
		change(func(_ *config, q *QuotaConfig) { setRate(q.Tenants, name, rate(q.Tenants[name])) })
	})
	most, hasMost := r.integer(n.get("max_tenants"), 1, mostTenants)
	return option(func(c *config) {
		q := c.quotas
		q.Classes, q.Tenants = cloned(q.Classes), cloned(q.Tenants)
		for _, f := range changes {
			f(c, &q)
		}
		assign(&q.MaxTenants)(most, hasMost)
		c.quotas = q
	})
}

// cloned returns a copy that is not nil.
func cloned[K comparable](m map[K]Rate) map[K]Rate {
	if m == nil {
		return map[K]Rate{}
	}
	return maps.Clone(m)
}

// setRate sets a rate. The zero Rate removes it.
func setRate[K comparable](m map[K]Rate, key K, r Rate) {
	if r == (Rate{}) {
		delete(m, key)
		return
	}
	m[key] = r
}

// rate reads a rate. It returns a function that applies its keys to the rate before.
func (r *reader) rate(n *node) func(Rate) Rate {
	if n.token == nil {
		return func(Rate) Rate { return Rate{} }
	}
	if n.token == json.Delim('{') && n.get("rate") == nil && n.get("burst") == nil {
		r.wrong(n, `got neither "rate" nor "burst", want one, or null for no quota`)
	}
	if !r.object(n, "rate", "burst") {
		return func(before Rate) Rate { return before }
	}
	perSecond, hasRate := r.number(n.get("rate"), 0, mostPerSecond)
	if hasRate && perSecond == 0 {
		r.wrong(n.get("rate"), "got 0, want more than 0, or null for no quota")
	}
	burst, hasBurst := r.integer(n.get("burst"), 1, mostBurst)
	return func(before Rate) Rate {
		assign(&before.PerSecond)(perSecond, hasRate)
		assign(&before.Burst)(burst, hasBurst)
		return before
	}
}
