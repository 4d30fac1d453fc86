package debug

import (
	"fmt"
	"time"

	"github.com/weir-go/weir/interceptors/retry"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

const (
	// manyRetries is the least number of retries per call that is a finding, and fewCalls the
	// number of calls below which it is none.
	manyRetries = 0.1
	fewCalls    = 10
)

// retried are the counts of a meter's methods.
type retried map[[2]string]retry.MeterStats

// retries returns the state of a meter of retries. since holds the counts of earlier, if any.
func (f *findings) retries(m *retry.Meter, since retried, over time.Duration) ([]*debugpb.Retries, retried) {
	var all []*debugpb.Retries
	now := retried{}
	for _, s := range m.Stats() {
		key := [2]string{s.Target, s.Method}
		now[key] = s
		out := &debugpb.Retries{
			Meter: clean(m.Name()), Target: clean(s.Target), Method: clean(s.Method), Calls: int64(s.Calls), Retries: int64(s.Retries),
			Transparent: int64(s.Transparent), Withheld: int64(s.Withheld), Recent: ratio(s.Retries, s.Calls),
		}
		if before, ok := since[key]; ok {
			s.Calls, s.Retries, s.Withheld = s.Calls-before.Calls, s.Retries-before.Retries, s.Withheld-before.Withheld
			out.Recent = ratio(s.Retries, s.Calls)
			f.retried(out, &s, over)
		}
		if len(all) < mostClients {
			all = append(all, out)
		}
	}
	return all, now
}

// retried remarks on the recent calls of a method.
func (f *findings) retried(m *debugpb.Retries, recent *retry.MeterStats, over time.Duration) {
	source := "retries " + m.GetMeter()
	switch {
	case recent.Withheld > 0:
		f.add(debugpb.Finding_LEVEL_WARNING, source, fmt.Sprintf(
			"The retry budget of %s is used up. In the last %s %s of %s failed, and gRPC did not send %s again. "+
				"Too many calls to the target fail, so look there.",
			m.GetTarget(), inWords(over), many(int64(recent.Withheld), "call"), m.GetMethod(), verb(int64(recent.Withheld), "it", "them")))
	case recent.Calls >= fewCalls && m.GetRecent() >= manyRetries:
		f.add(debugpb.Finding_LEVEL_WARNING, source, fmt.Sprintf(
			"gRPC sends %s to %s again: %s retries per call in the last %s. "+
				"The target fails or refuses, and retries add to its load.",
			m.GetMethod(), m.GetTarget(), digits(m.GetRecent()), inWords(over)))
	}
}

// budgets returns the estimates of the retry budgets of a meter.
func budgets(m *retry.Meter) (all []*debugpb.RetryBudget) {
	for _, b := range m.Budgets() {
		if len(all) < mostClients {
			all = append(all, &debugpb.RetryBudget{Meter: clean(m.Name()), Target: clean(b.Target), Tokens: b.Tokens, Most: b.Max})
		}
	}
	return all
}

func ratio(part, whole uint64) float64 { return float64(part) / float64(max(1, whole)) }
