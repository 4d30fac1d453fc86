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
func (f *findings) retries(m *retry.Meter, since retried, over time.Duration) (*debugpb.Other, retried) {
	out := &debugpb.Other{Kind: "retries", Name: clean(m.Name())}
	now := retried{}
	for _, s := range m.Stats() {
		key := [2]string{s.Target, s.Method}
		now[key] = s
		text := fmt.Sprintf("%.3g retries per call (%d calls, %d retries, %d transparent ones)",
			ratio(s.Retries, s.Calls), s.Calls, s.Retries, s.Transparent)
		if before, ok := since[key]; ok && s.Calls > before.Calls {
			calls, again := s.Calls-before.Calls, s.Retries-before.Retries
			text += fmt.Sprintf("; %.3g in the last %s", ratio(again, calls), inWords(over))
			if calls >= fewCalls && ratio(again, calls) >= manyRetries {
				f.add(debugpb.Finding_LEVEL_WARNING, "retries "+out.GetName(), fmt.Sprintf(
					"gRPC sends %s to %s again: %.2g retries per call in the last %s. "+
						"The target fails or refuses, and retries add to its load.",
					clean(s.Method), clean(s.Target), ratio(again, calls), inWords(over)))
			}
		}
		if len(out.GetFields()) < mostFields {
			out.Fields = append(out.Fields, &debugpb.Field{Name: clean(s.Method) + " at " + clean(s.Target), Value: text})
		}
	}
	return out, now
}

func ratio(part, whole uint64) float64 { return float64(part) / float64(max(1, whole)) }
