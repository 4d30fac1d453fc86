package admit_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
)

// A tenant whose calls hold permits for a minute does not keep the permits from another
// that wants one on the mean, however the calls come and whatever they cost.
func TestATenantWithLongCalls(t *testing.T) {
	type how struct {
		rate float64
		loop int
	}
	for row, tt := range []struct {
		name        string
		limit, cost int
		hold        time.Duration
		come        how
		from        time.Duration // when the other tenant comes
		want        float64
	}{
		{"two a second", 20, 1, time.Minute, how{rate: 2}, 0, 0.95},
		{"all at once", 20, 1, time.Minute, how{loop: 40}, 0, 0.95},
		{"cost 10", 20, 10, time.Minute, how{rate: 2}, 0, 0.95},
		{"cost 10, all at once", 20, 10, time.Minute, how{loop: 40}, 0, 0.95},
		{"cost of all", 20, 20, time.Minute, how{rate: 2}, 0, 0.95},
		{"cost beyond all, all at once", 20, 30, time.Minute, how{loop: 40}, 0, 0.95},
		{"alone for a while", 20, 1, time.Minute, how{loop: 40}, 30 * time.Second, 0.95},
		{"calls of 5 s, a small limit", 8, 1, 5 * time.Second, how{loop: 40}, 0, 0.95},
		{"a limit of 100", 100, 10, time.Minute, how{rate: 10}, 0, 0.95},
		{"a limit of 4", 4, 1, time.Minute, how{rate: 2}, 0, 0.95},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spare(t, row)
			got, _ := world{gate: limited(tt.limit), lasts: 5 * time.Minute, streams: []stream{
				{call: admit.Call{Tenant: "long", Cost: tt.cost}, rate: tt.come.rate, loop: tt.come.loop, lasts: always(tt.hold)},
				{call: admit.Call{Tenant: "short"}, rate: 100, lasts: exponential(10 * ms), from: tt.from},
			}}.run(t)
			long, short := got[0], got[1]
			measured(t, short)
			if share := short.share(); share < tt.want {
				t.Errorf("the other tenant: got %.4f served, want at least %v; refused %v", share, tt.want, short.refused)
			}
			if short.refused[admit.OverShare] > short.calls/200 {
				t.Errorf("the other tenant: got %v refused, want it not to be blamed", short.refused)
			}
			if blamed, all := long.refused[admit.OverShare], len(long.refusedIn); blamed < all*9/10 {
				t.Errorf("the tenant with long calls: got %d of %d refusals because of its share, want nearly all: %v", blamed, all, long.refused)
			}
			if long.good == 0 {
				t.Error("the tenant with long calls: got none served, want what others do not want")
			}
		})
	}
}

// Several tenants with long calls leave as much together.
func TestManyTenantsWithLongCalls(t *testing.T) {
	for _, tenants := range []int{2, 5} {
		streams := []stream{{call: admit.Call{Tenant: "short"}, rate: 100, lasts: exponential(10 * ms)}}
		for i := range tenants {
			streams = append(streams, stream{call: admit.Call{Tenant: fmt.Sprint("long ", i)}, rate: 1, lasts: always(30 * time.Second)})
		}
		got, _ := world{gate: limited(20), lasts: 5 * time.Minute, streams: streams}.run(t)
		if short := got[0]; short.share() < 0.95 || short.refused[admit.OverShare] > short.calls/200 {
			t.Errorf("beside %d tenants with long calls: got %.4f served, want at least 0.95; refused %v", tenants, short.share(), short.refused)
		}
		for i, c := range got[1:] {
			if c.good < 5 {
				t.Errorf("long tenant %d of %d: got %d calls served, want at least 5", i, tenants, c.good)
			}
		}
	}
}

// A tenant whose dear calls last long and come one by one is a stranger each time. From its
// second call on it leaves permits to tenants with short calls as if it were known.
func TestALongTenantThatComesBack(t *testing.T) {
	for row, tt := range []struct {
		limit, tenants, cost int
		lasts                time.Duration
	}{{63, 18, 126, 18 * time.Second}, {27, 5, 27, 8 * time.Second}, {16, 2, 16, 5 * time.Second}} {
		spare(t, row)
		const service = 20 * ms
		streams := []stream{{call: admit.Call{Tenant: "dear", Cost: tt.cost}, loop: 1, lasts: always(tt.lasts), from: time.Second}}
		first := time.Second + tt.lasts // its first call is over then
		for i := range tt.tenants {
			rate := 0.35 * float64(tt.limit) / float64(tt.tenants) / service.Seconds()
			s := stream{call: admit.Call{Tenant: fmt.Sprint(i)}, rate: rate, lasts: exponential(service), to: first}
			streams = append(streams, s)
			s.from, s.to = first, 0
			streams = append(streams, s)
		}
		got, _ := world{gate: limited(tt.limit), lasts: first + 2*tt.lasts, streams: streams}.run(t)
		calls, good := 0, 0
		for i := 2; i < len(got); i += 2 {
			calls, good = calls+got[i].calls, good+got[i].good
		}
		if share := float64(good) / float64(calls); share < 0.95 {
			t.Errorf("limit %d, tenants beside one with dear calls of %v: got %.3f served, want at least 0.95", tt.limit, tt.lasts, share)
		}
		if got[0].good < 2 {
			t.Errorf("limit %d, dear calls: got %d served, want 2", tt.limit, got[0].good)
		}
	}
}

// A guaranteed share is there at once, however long the calls of other classes last.
func TestAShareBesideLongCalls(t *testing.T) {
	for row, tt := range []struct {
		name            string
		limit           int
		share           float64
		owner, borrower admit.Class
		lasts, theirs   time.Duration
	}{
		{"0.5 s", 8, 0.5, admit.Critical, admit.Background, 10 * ms, 500 * ms},
		{"2 s", 8, 0.5, admit.Critical, admit.Background, 10 * ms, 2 * time.Second},
		{"0.1 s", 8, 0.5, admit.Critical, admit.Background, 10 * ms, 100 * ms},
		{"20 s", 8, 0.5, admit.Critical, admit.Background, 10 * ms, 20 * time.Second},
		{"calls as long as theirs", 8, 0.5, admit.Critical, admit.Background, 40 * ms, 300 * ms},
		{"a larger gate", 40, 0.25, admit.Critical, admit.Default, 10 * ms, 3 * time.Second},
		{"the long calls are critical", 16, 0.5, admit.Background, admit.Critical, 10 * ms, 2 * time.Second},
	} {
		for _, deadline := range []time.Duration{0, 100 * ms} {
			t.Run(fmt.Sprintf("%s, deadline %v", tt.name, deadline), func(t *testing.T) {
				spare(t, row)
				if deadline > 0 {
					deadline += 5 * tt.lasts // a call takes as long by chance
				}
				permits := float64(tt.limit)
				got, _ := world{
					gate:  limited(tt.limit, admit.WithClassConfig(tt.owner, admit.ClassConfig{Share: tt.share})),
					lasts: 200 * time.Second, streams: []stream{
						{call: admit.Call{Class: tt.owner}, rate: 0.4 * tt.share * permits / tt.lasts.Seconds(), lasts: exponential(tt.lasts), deadline: deadline},
						{call: admit.Call{Class: tt.borrower}, rate: 2 * permits / tt.theirs.Seconds(), lasts: exponential(tt.theirs)},
					},
				}.run(t)
				measured(t, got[0])
				if c := got[0]; c.share() < 0.99 {
					t.Errorf("the class with the share: got %.4f served, want at least 0.99; refused %v, left %d", c.share(), c.refused, c.left)
				}
				if used := float64(got[1].good) * tt.theirs.Seconds() / permits / 200; used < (1-tt.share)*0.9 {
					t.Errorf("the other class: got %.3f of the permits, want about the %v that are not guaranteed", used, 1-tt.share)
				}
			})
		}
	}
}

// A share is not lent to calls that return a permit often but each after a long time. A class
// that asks for half of its share would have to win back every permit.
func TestAShareBesideManyLongCalls(t *testing.T) {
	for _, tt := range []struct {
		limit         int
		owner, theirs admit.Class
		share         float64
		lasts, long   time.Duration
	}{
		{80, admit.Background, admit.Sheddable, 0.5, 4 * ms, 780 * ms},
		{120, admit.Default, admit.Critical, 0.5, 9 * ms, 1100 * ms},
		{60, admit.Critical, admit.Default, 0.75, 5 * ms, 580 * ms},
	} {
		if slowdown > 1 && tt.limit != 60 {
			continue // the smaller gate is enough for the race detector
		}
		permits := float64(tt.limit)
		got, _ := world{
			gate: limited(tt.limit, admit.WithClassConfig(tt.owner, admit.ClassConfig{Share: tt.share})), lasts: 8 * time.Second,
			streams: []stream{
				{call: admit.Call{Class: tt.owner}, rate: 0.5 * tt.share * permits / tt.lasts.Seconds(), lasts: exponential(tt.lasts)},
				{call: admit.Call{Class: tt.theirs}, rate: 4 * permits / tt.long.Seconds(), lasts: exponential(tt.long)},
			},
		}.run(t)
		if c := got[0]; c.share() < 0.99 {
			t.Errorf("limit %d, the class with the share: got %.4f served, want at least 0.99; refused %v", tt.limit, c.share(), c.refused)
		}
	}
}

// A class whose calls come in bursts has its share at once for each of them, although it needs
// next to nothing on the mean.
func TestAShareForBursts(t *testing.T) {
	for _, tt := range []struct {
		limit, burst     int
		every, lasts     time.Duration
		deadline, theirs time.Duration
	}{
		{20, 10, 5 * time.Second, 20 * ms, 150 * ms, 2 * time.Second},
		{20, 10, 30 * time.Second, 20 * ms, 100 * ms, 2 * time.Second},
		{8, 4, 10 * time.Second, 50 * ms, 200 * ms, 2 * time.Second},
		{200, 100, 5 * time.Second, 20 * ms, 100 * ms, 2 * time.Second},
		{40, 20, time.Second, 50 * ms, 120 * ms, time.Second},
	} {
		got, _ := world{
			gate: limited(tt.limit, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5})), lasts: 110 * time.Second,
			streams: []stream{
				{
					call: admit.Call{Class: admit.Critical}, rate: float64(tt.burst) / tt.every.Seconds(), burst: tt.burst,
					lasts: always(tt.lasts), deadline: tt.deadline,
				},
				{call: admit.Call{Class: admit.Background}, loop: 2 * tt.limit, lasts: always(tt.theirs)},
			},
		}.run(t)
		if c := got[0]; c.calls == 0 || c.share() < 0.99 {
			t.Errorf("limit %d, bursts of %d: got %.3f of %d served, want at least 0.99; refused %v", tt.limit, tt.burst, c.share(), c.calls, c.refused)
		}
	}
}

// A class that uses little of its share leaves the rest to calls of any length.
func TestAShareThatIsHardlyUsed(t *testing.T) {
	for _, tt := range []struct {
		limit int
		share float64
		asks  float64 // permits that the class with the share needs on the mean
		lasts time.Duration
		want  float64 // of the permits, for all calls together
	}{
		{8, 0.5, 0.1, 500 * ms, 0.65},
		{40, 0.5, 2, 2 * time.Second, 0.85},
		{40, 0.5, 1, 20 * ms, 0.8},
		{100, 0.75, 10, time.Second, 0.9},
	} {
		const length = 100 * time.Second
		got, _ := world{
			gate: limited(tt.limit, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: tt.share})), lasts: length,
			streams: []stream{
				{call: admit.Call{Class: admit.Critical}, rate: tt.asks / tt.lasts.Seconds(), lasts: exponential(tt.lasts)},
				{call: admit.Call{Class: admit.Background}, rate: float64(tt.limit), lasts: always(2 * time.Second)},
			},
		}.run(t)
		used := (float64(got[0].good)*tt.lasts.Seconds() + float64(got[1].good)*2) / float64(tt.limit) / length.Seconds()
		if used < tt.want {
			t.Errorf("limit %d, share %v, of which %v permits are used: got %.3f of the permits in use, want at least %v", tt.limit, tt.share, tt.asks, used, tt.want)
		}
		if c := got[0]; c.share() < 0.97 {
			t.Errorf("limit %d, the class with the share: got %.4f served, want at least 0.97; refused %v", tt.limit, c.share(), c.refused)
		}
	}
}

// A class without a share makes progress, but not with the permits of a share that is used.
func TestAShareBesideClassesThatStarve(t *testing.T) {
	const service = 10 * ms
	for _, tt := range []struct {
		limit        int
		owner        admit.Class
		share, other float64 // other is the share of critical calls
		theirs       time.Duration
	}{
		{45, admit.Sheddable, 0.5, 0.5, 80 * ms},
		{20, admit.Default, 0.75, 0, 350 * ms},
		{20, admit.Background, 0.5, 0.25, 60 * ms},
		{100, admit.Critical, 0.5, 0, 500 * ms},
	} {
		if slowdown > 1 && tt.limit != 20 {
			continue // the smaller gates are enough for the race detector
		}
		permits := float64(tt.limit)
		got, _ := world{
			gate: limited(tt.limit, admit.WithClassConfig(tt.owner, admit.ClassConfig{Share: tt.share}),
				admit.WithClassConfig(4, admit.ClassConfig{Name: "flood", Share: tt.other, Priority: 900}),
				admit.WithClassConfig(5, admit.ClassConfig{Name: "starving", Priority: 50})),
			lasts: 10 * time.Second, streams: []stream{
				{call: admit.Call{Class: tt.owner}, rate: 0.6 * tt.share * permits / service.Seconds(), lasts: exponential(service)},
				{call: admit.Call{Class: 4}, rate: 2 * permits / service.Seconds(), lasts: exponential(service)},
				{call: admit.Call{Class: 5}, rate: 2 * permits / tt.theirs.Seconds(), lasts: exponential(tt.theirs)},
			},
		}.run(t)
		if c := got[0]; c.share() < 0.985 {
			t.Errorf("limit %d, the class %v: got %.4f served, want at least 0.985; refused %v", tt.limit, tt.owner, c.share(), c.refused)
		}
		if c := got[2]; float64(c.good) < 10*permits/21*0.5/tt.theirs.Seconds() {
			t.Errorf("limit %d, the class that starves: got %d served, want some", tt.limit, c.good)
		}
	}
}

// A share whose class makes no call for a minute is lent to calls of any length.
func TestAShareThatIsNotWanted(t *testing.T) {
	_, s := world{
		gate: limited(8, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5})), lasts: 100 * time.Second,
		streams: []stream{{call: admit.Call{Class: admit.Background}, rate: 8, lasts: exponential(2 * time.Second)}},
	}.run(t)
	if held := s.Held[admit.Background]; held < 7 {
		t.Errorf("permits of background calls after 100 s without critical ones: got %d of 8, want nearly all", held)
	}
}

// Calls that cost the whole limit get their turn beside small ones, and harm them no more
// than the permits that they take.
func TestCallsThatCostTheWholeLimit(t *testing.T) {
	for row, tt := range []struct {
		lasts       time.Duration
		big, small  string // tenants
		cost        int
		load        float64
		wantBig     float64
		wantSmall   float64
		bigDeadline time.Duration
	}{
		{5 * ms, "", "", 16, 0.6, 0.99, 0.99, 0},
		{20 * ms, "", "", 16, 0.6, 0.95, 0.99, 0},
		{20 * ms, "", "", 40, 0.6, 0.95, 0.99, 0},
		{50 * ms, "", "", 16, 0.6, 0.9, 0.95, 0},
		{100 * ms, "", "", 16, 0.6, 0.6, 0.85, 0}, // they leave hardly enough for the small ones
		{20 * ms, "big", "small", 16, 0.6, 0.95, 0.99, 0},
		{100 * ms, "big", "small", 16, 0.6, 0.6, 0.9, 0},
		{20 * ms, "", "", 16, 0.6, 0.9, 0.99, 500 * ms},
	} {
		t.Run(fmt.Sprintf("%v, tenant %q, cost %d, deadline %v", tt.lasts, tt.big, tt.cost, tt.bigDeadline), func(t *testing.T) {
			spare(t, row+1) // the first is the longest
			got, _ := world{gate: limited(16), lasts: 100 * time.Second, streams: []stream{
				{call: admit.Call{Cost: tt.cost, Tenant: tt.big}, rate: 1, lasts: always(tt.lasts), deadline: tt.bigDeadline},
				{call: admit.Call{Tenant: tt.small}, rate: tt.load * 16 / tt.lasts.Seconds(), lasts: exponential(tt.lasts)},
			}}.run(t)
			measured(t, got[0], got[1])
			if big := got[0]; big.share() < tt.wantBig {
				t.Errorf("calls that cost %d: got %.3f served, want at least %v; refused %v", tt.cost, big.share(), tt.wantBig, big.refused)
			}
			if small := got[1]; small.share() < tt.wantSmall {
				t.Errorf("calls that cost one: got %.4f served, want at least %v; refused %v", small.share(), tt.wantSmall, small.refused)
			}
		})
	}
}

// Quick calls of a high class are not refused because calls of a low one are slow: what a
// call takes is a question of its kind.
func TestADeadlineIsMeasuredByItsKind(t *testing.T) {
	for _, tt := range []struct {
		name     string
		slow     time.Duration
		limit    int
		quick    time.Duration
		deadline time.Duration
	}{
		{"2 s", 2 * time.Second, 8, 5 * ms, 1500 * ms},
		{"10 s", 10 * time.Second, 40, 50 * ms, 1200 * ms},
		{"400 ms", 400 * ms, 4, 5 * ms, 300 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			streams := []stream{{call: admit.Call{Class: admit.Critical}, rate: 2, lasts: always(tt.quick), deadline: tt.deadline}}
			gap := tt.slow / time.Duration(tt.limit)
			for i := range 2 * tt.limit { // a permit comes back in each gap
				streams = append(streams, stream{call: admit.Call{Class: admit.Background}, loop: 1, lasts: always(tt.slow), from: time.Duration(i) * gap})
			}
			got, _ := world{gate: limited(tt.limit), lasts: 110 * time.Second, streams: streams}.run(t)
			measured(t, got[0])
			if c := got[0]; c.share() < 0.95 {
				t.Errorf("quick calls: got %.3f served, want at least 0.95; refused %v, left %d", c.share(), c.refused, c.left)
			}
		})
	}
}

// A guess about a deadline that has become wrong is found out by the calls that are let in
// to try.
func TestAGuessIsCorrected(t *testing.T) {
	var quick atomic.Bool
	got, _ := world{
		gate: limited(2), lasts: 40 * time.Second,
		streams: []stream{
			{call: admit.Call{Class: admit.Critical}, rate: 20, deadline: 250 * ms, lasts: func(*rand.Rand) time.Duration {
				if !quick.Load() {
					return 300 * ms
				}
				return 5 * ms
			}},
			{call: admit.Call{}, rate: 50, lasts: exponential(50 * ms)},
		},
		during: func(*admit.Gate) {
			time.Sleep(10 * time.Second)
			quick.Store(true)
		},
	}.run(t)
	// A quarter of the calls came while none could end in time.
	if c := got[0]; float64(c.good) < 0.97*0.75*float64(c.calls) {
		t.Errorf("calls that had become quick: got %d of %d served, want nearly three quarters; refused %v", c.good, c.calls, c.refused)
	}
}

// Shares, bounds and limits that change while long calls run lose nobody's permits, and hold
// from then on.
func TestFairnessAcrossUpdates(t *testing.T) {
	share := func(s float64) admit.Option {
		return admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: s})
	}
	got, _ := world{
		gate: limited(8), lasts: 120 * time.Second,
		streams: []stream{
			{call: admit.Call{Class: admit.Critical}, rate: 160, lasts: exponential(10 * ms), from: 30 * time.Second},
			{call: admit.Call{Class: admit.Background}, rate: 8, lasts: exponential(2 * time.Second)},
		},
		during: func(g *admit.Gate) {
			time.Sleep(10 * time.Second)
			update(t, g, share(0.5))
			for i := range 20 {
				time.Sleep(5 * time.Second)
				update(t, g, fixed(t, 8+4*(i%2)), share(0.5+0.125*float64(i%2)))
			}
		},
	}.run(t)
	if c := got[0]; c.share() < 0.99 {
		t.Errorf("critical calls: got %.4f served, want at least 0.99; refused %v", c.share(), c.refused)
	}
}

// Tenants that have a gate to themselves, or share it with their like, are served as calls
// without a tenant are, however long their calls last.
func TestTenantsOfOneKind(t *testing.T) {
	for _, tt := range []struct {
		name           string
		limit, tenants int
		lasts          func(*rand.Rand) time.Duration
		load           float64 // or, if it is 0, as many callers as permits
		mean           time.Duration
	}{
		{"a burst of calls begins", 196, 1, always(102 * ms), 0.7, 102 * ms},
		{"some calls are long by chance", 20, 1, exponential(150 * ms), 0.5, 150 * ms},
		{"two permits", 2, 1, always(260 * ms), 0.5, 260 * ms},
		{"as many callers as permits", 8, 1, always(1200 * ms), 0, 0},
		{"as many callers as a few permits", 4, 2, always(900 * ms), 0, 0},
		{"two tenants with long calls", 19, 2, always(1370 * ms), 0.5, 1370 * ms},
		{"five tenants with long calls", 40, 5, always(5 * time.Second), 0.5, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := func(r *rand.Rand) admit.Call { return admit.Call{Tenant: fmt.Sprint(r.IntN(tt.tenants))} }
			s := stream{each: calls, lasts: tt.lasts, loop: tt.limit}
			if tt.load > 0 {
				s.loop, s.rate = 0, tt.load*float64(tt.limit)/tt.mean.Seconds()
			}
			streams := []stream{s}
			if tt.load > 0 && tt.limit > 100 {
				streams = append(streams, stream{each: calls, lasts: tt.lasts, rate: 300, burst: 300, to: 1100 * ms})
			}
			got, _ := world{gate: limited(tt.limit), lasts: 40 * time.Second, streams: streams}.run(t)
			if lost := got[0].calls - got[0].good; lost > got[0].calls/200 {
				t.Errorf("got %d of %d calls lost, want next to none; refused %v", lost, got[0].calls, got[0].refused)
			}
			if p99 := quantile(got[0].waited, 0.99); tt.load == 0 && p99 > 0 {
				t.Errorf("wait while permits are free: got p99 %v, want none", p99)
			}
		})
	}
}
