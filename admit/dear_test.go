package admit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
)

// A call that costs the whole limit keeps its turn while the permits come back for it, and the
// tenants behind it do not overtake it one by one, which would leave the permits idle. Its tenant
// pays for permits that stay idle, so that the others get what they ask for.
func TestADearCallKeepsItsTurn(t *testing.T) {
	for row, tt := range []struct {
		limit, tenants int
		dear           float64 // calls that cost the limit, as a part of the capacity
	}{
		{120, 1, 1.2}, {120, 3, 0.3}, {20, 2, 0.5}, {8, 5, 2}, {3, 1, 1},
	} {
		t.Run(fmt.Sprintf("limit %d, %d tenants, %g", tt.limit, tt.tenants, tt.dear), func(t *testing.T) {
			spare(t, row+1) // the first is the longest
			const lasts, service = 20 * time.Second, 18 * ms
			permits := float64(tt.limit) / service.Seconds()
			streams := []stream{{call: admit.Call{Tenant: "dear", Cost: tt.limit}, rate: tt.dear / service.Seconds(), lasts: exponential(service)}}
			for i := range tt.tenants {
				streams = append(streams, stream{call: admit.Call{Tenant: fmt.Sprint(i)}, rate: 0.2 * permits / float64(tt.tenants), lasts: exponential(service)})
			}
			got, _ := world{gate: limited(tt.limit), lasts: lasts, streams: streams}.run(t)
			// Alone, each of the two kinds gets all that it asks for or all permits.
			used := float64(got[0].good) * service.Seconds() / lasts.Seconds()
			if want := 0.07 * min(tt.dear, 0.8); used < want {
				t.Errorf("dear calls: got %.3f of the permits, want at least %.3f; refused %v", used, want, got[0].refused)
			}
			for i, c := range got[1:] {
				if c.share() < 0.95 {
					t.Errorf("tenant %d: got %.3f served, want at least 0.95; refused %v", i, c.share(), c.refused)
				}
			}
		})
	}
}

// A tenant pays for permits that stayed idle for its dear calls, whether the calls were served or
// gave up. Otherwise the permits would come back for one dear call after another, and a tenant
// that asks for less than an equal part would wait all the time.
func TestADearTenantPaysForIdlePermits(t *testing.T) {
	for row, tt := range []struct {
		limit, cost int
		asks        float64 // a tenant with small calls, as a part of the permits
		holders     int     // calls of a lower class that hold a permit all the time
		lasts       time.Duration
		want        float64
	}{
		{120, 120, 0.25, 0, 18 * ms, 0.8},
		{70, 140, 0.25, 0, 60 * ms, 0.8},
		{20, 20, 0.2, 4, 20 * ms, 0.6}, // no dear call is ever served
		{20, 20, 0.3, 0, 50 * ms, 0.85},
	} {
		t.Run(fmt.Sprintf("limit %d, cost %d, %v", tt.limit, tt.cost, tt.lasts), func(t *testing.T) {
			spare(t, row) // the race detector changes the order of calls that come at once
			rate := tt.asks * float64(tt.limit) / tt.lasts.Seconds()
			streams := []stream{
				{call: admit.Call{Tenant: "small"}, rate: rate, lasts: exponential(tt.lasts)},
				{call: admit.Call{Tenant: "dear", Cost: tt.cost}, rate: 2 / tt.lasts.Seconds(), lasts: exponential(tt.lasts)},
			}
			if tt.holders > 0 {
				streams = append(streams, stream{call: admit.Call{Class: admit.Background}, loop: tt.holders, lasts: always(time.Minute)})
			}
			got, _ := world{gate: limited(tt.limit), lasts: 15 * time.Second, streams: streams}.run(t)
			if small := got[0]; small.share() < tt.want {
				t.Errorf("small calls: got %.3f served, want at least %v; refused %v", small.share(), tt.want, small.refused)
			}
			if dear := got[1]; tt.holders == 0 && dear.good < 20 {
				t.Errorf("dear calls: got %d served, want some", dear.good)
			}
		})
	}
}

// A call that costs the whole limit is served beside small ones, although a share of its class
// makes the gate count, and at the bound of its class.
func TestADearCallOfACountedClass(t *testing.T) {
	const limit, service = 60, 4 * ms
	for row, tt := range []struct {
		name       string
		big, small string // tenants
		cost       int
		class      admit.ClassConfig
	}{
		{"a share", "big", "small", limit, admit.ClassConfig{Share: 0.1}},
		{"a larger share", "big", "small", limit, admit.ClassConfig{Share: 0.5}},
		{"beyond the limit", "big", "small", 1 << 30, admit.ClassConfig{Share: 0.5}},
		{"more than half", "big", "small", limit/2 + 1, admit.ClassConfig{Share: 0.25}},
		{"no tenants", "", "", limit, admit.ClassConfig{Share: 0.1}},
		{"a bound", "big", "small", limit / 2, admit.ClassConfig{Max: 0.5}},
		{"a bound, no tenants", "", "", limit / 2, admit.ClassConfig{Max: 0.5}},
		{"beyond the bound", "big", "small", limit, admit.ClassConfig{Max: 0.5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spare(t, row)
			got, _ := world{
				gate: limited(limit, admit.WithClassConfig(admit.Default, tt.class)), lasts: 5 * time.Second,
				streams: []stream{
					{call: admit.Call{Tenant: tt.big, Cost: tt.cost}, rate: 8, lasts: exponential(service)},
					{call: admit.Call{Tenant: tt.small}, rate: 0.25 * limit / service.Seconds(), lasts: exponential(service)},
				},
			}.run(t)
			if big := got[0]; big.share() < 0.95 {
				t.Errorf("dear calls: got %.3f of %d served, want at least 0.95; refused %v", big.share(), big.calls, big.refused)
			}
			if small := got[1]; small.share() < 0.99 {
				t.Errorf("small calls: got %.4f served, want at least 0.99; refused %v", small.share(), small.refused)
			}
		})
	}
}
