package debug

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/retry"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

// take makes a snapshot of all sources.
func (h *Handler) take(now time.Time) *debugpb.Snapshot {
	s := &debugpb.Snapshot{At: timestamppb.New(now)}
	var f findings
	counts := &counted{
		at: now, gates: map[*admit.Gate]admit.Stats{}, tries: map[*retry.Meter]retried{},
	}
	all := make(gates, len(h.sources.Gates))
	for n, g := range h.sources.Gates {
		all[n] = g.Inspect()
	}
	basis := h.past.basis(now)
	for n, g := range h.sources.Gates {
		i := &all[n]
		s.Gates = append(s.Gates, h.gate(i, now))
		f.gate(i, all, basis.since(g, i, now), now)
		counts.gates[g] = i.Stats
	}
	for _, b := range h.sources.Breakers {
		s.Circuits = append(s.Circuits, circuits(b, &f)...)
	}
	for _, m := range h.sources.Retries {
		before, over := basis.retriesOf(m, now)
		var of []*debugpb.Retries
		of, counts.tries[m] = f.retries(m, before, over)
		s.Retries, s.RetryBudgets = append(s.Retries, of...), append(s.RetryBudgets, budgets(m)...)
	}
	h.past.keep(counts)
	for _, t := range h.sources.Throttles {
		s.Throttles = append(s.Throttles, throttles(t, &f)...)
	}
	unread := int64(0)
	for _, m := range h.sources.Streams {
		one := meter(m, now, &f)
		s.Meters, unread = append(s.Meters, one), unread+one.GetLag()
	}
	for _, m := range h.sources.Brokers {
		stats := m.Stats()
		s.Others, unread = append(s.Others, messages(m.Name(), &stats, now, &f)), unread+int64(stats.Held)
	}
	work := all.held(unread)
	for _, m := range h.sources.Monitors {
		s.Monitors = append(s.Monitors, monitor(m, work, &f))
	}
	for _, o := range h.sources.others {
		s.Others = append(s.Others, other(o))
	}
	s.Findings = f.sorted()
	return s
}

// gate returns the state of a gate.
func (h *Handler) gate(i *admit.Inspection, now time.Time) *debugpb.Gate {
	s := &i.Stats
	out := &debugpb.Gate{
		Name: clean(s.Name), Limit: int32(s.Limit), InFlight: int32(s.InFlight),
		Queue: int32(s.Queue), QueueCapacity: int32(s.QueueCapacity),
		Ready: int32(s.Ready), Tenants: int32(s.Tenants), Draining: s.Draining, DryRun: s.DryRun,
		Succeeded: int64(s.Ended[admit.Success]), Overloaded: int64(s.Ended[admit.Overload]), Ignored: int64(s.Ended[admit.Ignored]),
		Left: int64(s.Left), Panics: int64(s.Panics), SendStalls: int64(s.SendStalls),
		LastEndSeconds: -1, Unlisted: int32(i.Unlisted),
		Running: h.calls(s, i.Running, now), Waiting: h.calls(s, i.Waiting, now),
	}
	if !i.LastEnd.IsZero() {
		out.LastEndSeconds = max(0, now.Sub(i.LastEnd).Seconds())
	}
	for c, name := range s.Classes {
		out.OldestWaitSeconds = max(out.GetOldestWaitSeconds(), i.Oldest[c].Seconds())
		if name != "" {
			out.Classes = append(out.Classes, class(i, c))
		}
	}
	for _, t := range i.Tenants {
		out.BusiestTenants = append(out.BusiestTenants, &debugpb.Tenant{
			Name: h.tenants.tenant(t.Name), Class: clean(s.Classes[t.Class]), Held: int32(t.Held), Waiting: int32(t.Waiting),
		})
	}
	for n := range i.Decisions {
		d := &i.Decisions[len(i.Decisions)-1-n]
		out.Decisions = append(out.Decisions, &debugpb.Decision{
			At: timestamppb.New(d.At), From: int32(d.From), To: int32(d.To), Why: clean(d.Why), Seen: d.Seen(),
		})
	}
	for n := range i.Refusals {
		out.Refusals = append(out.Refusals, h.refusal(s, &i.Refusals[len(i.Refusals)-1-n]))
	}
	for n := range i.History {
		out.History = append(out.History, moment(s, &i.History[n]))
	}
	return out
}

func class(i *admit.Inspection, c int) *debugpb.Class {
	s := &i.Stats
	out := &debugpb.Class{
		Name: clean(s.Classes[c]), Held: int32(i.Held[c]), Waiting: int32(s.Waiting[c]),
		OldestWaitSeconds: i.Oldest[c].Seconds(), Standing: s.Standing[c],
	}
	for why, n := range s.Refused[c] {
		if n > 0 {
			out.Refused = append(out.Refused, &debugpb.ReasonCount{Reason: admit.Reason(why).String(), Count: int64(n)})
		}
	}
	return out
}

func (h *Handler) calls(s *admit.Stats, calls []admit.CallState, now time.Time) (all []*debugpb.Call) {
	for i := range calls {
		c := &calls[i]
		out := &debugpb.Call{
			Method: clean(c.Method), Tenant: h.tenants.tenant(c.Tenant), Class: clean(s.Classes[c.Class]),
			Cost: int32(c.Cost), AgeSeconds: max(0, now.Sub(c.Since).Seconds()),
		}
		if !c.Deadline.IsZero() {
			left := c.Deadline.Sub(now).Seconds()
			out.DeadlineLeftSeconds = &left
		}
		all = append(all, out)
	}
	return all
}

func (h *Handler) refusal(s *admit.Stats, r *admit.RefusedCall) *debugpb.Refusal {
	name := clean(s.Classes[r.Class])
	return &debugpb.Refusal{
		At: timestamppb.New(r.At), Reason: r.Reason.String(), Method: clean(r.Method), Tenant: h.tenants.tenant(r.Tenant),
		Class: name, Explanation: explain(r, name), StandsFor: int64(r.Represents),
	}
}

func moment(s *admit.Stats, m *admit.Moment) *debugpb.Moment {
	out := &debugpb.Moment{
		At: timestamppb.New(m.At), Limit: int32(m.Limit), InFlight: int32(m.InFlight), Queue: int32(m.Queue),
		OldestWaitSeconds: m.Oldest.Seconds(), Succeeded: int64(m.Ended[admit.Success]),
	}
	for c, name := range s.Classes {
		out.Refused += int64(m.Refused[c])
		if name != "" {
			out.Classes = append(out.Classes, &debugpb.ClassMoment{
				Held: int32(m.Held[c]), Waiting: int32(m.Waiting[c]), Refused: int64(m.Refused[c]),
			})
		}
	}
	return out
}

// other asks a Describer. A panic of it becomes a field.
func other(d Describer) (out *debugpb.Other) {
	out = &debugpb.Other{Kind: "source", Name: clean(d.Name())}
	defer func() {
		if v := recover(); v != nil {
			out.Fields = append(out.Fields, &debugpb.Field{Name: "panic", Value: clean(fmt.Sprint(v))})
		}
	}()
	kind, fields := d.Describe()
	out.Kind = clean(kind)
	for _, f := range fields[:min(len(fields), mostFields)] {
		out.Fields = append(out.Fields, &debugpb.Field{Name: clean(f.Name), Value: clean(f.Value)})
	}
	return out
}

// mostFields bounds the fields of a Describer that are shown.
const mostFields = 100
