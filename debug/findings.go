package debug

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/admit"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

// findings collects remarks about the state.
type findings []*debugpb.Finding

func (f *findings) add(level debugpb.Finding_Level, source, text string) {
	*f = append(*f, &debugpb.Finding{Level: level, Source: source, Text: text})
}

// mostFindings bounds the findings that are shown.
const mostFindings = 20

// sorted returns the most urgent findings first.
func (f *findings) sorted() []*debugpb.Finding {
	slices.SortStableFunc(*f, func(a, b *debugpb.Finding) int { return cmp.Compare(b.GetLevel(), a.GetLevel()) })
	return (*f)[:min(len(*f), mostFindings)]
}

const (
	// stuck is how long a full gate goes without an end of a call before that is a finding.
	stuck = 5 * time.Second
	// longWait is how long the oldest waiter waits before that is a finding.
	longWait = time.Second
)

// gate remarks on a gate.
func (f *findings) gate(i *admit.Inspection, all gates, r recent, now time.Time) {
	s := &i.Stats
	source, before := "gate "+clean(s.Name), len(*f)
	idle, ever := now.Sub(i.LastEnd), !i.LastEnd.IsZero()
	if !ever {
		idle = oldest(i, now)
	}
	switch {
	case s.Draining:
		f.add(debugpb.Finding_LEVEL_INFO, source, fmt.Sprintf(
			"The gate drains and refuses every call. %s %s.", remedies[admit.Draining], remain(s.InFlight)))
	case s.Utilization() >= 1 && idle >= stuck && (s.Queue > 0 || r.total > 0):
		f.add(debugpb.Finding_LEVEL_CRITICAL, source, fmt.Sprintf(
			"Nothing moves. No call has ended for %s, all permits (%d) are in use and %s. "+
				"The handlers hang, wait for calls that wait at this gate, or are long streams.%s%s",
			inWords(idle), s.InFlight-s.Beyond, waiting(s.Queue), stuckCalls(i, now), all.others(s.Name, now)))
	case r.useless(s):
		f.add(debugpb.Finding_LEVEL_CRITICAL, source, fmt.Sprintf(
			"Almost nothing succeeds. Of %s that ended in the last %s %d succeeded, and all permits are in use. "+
				"The handlers hang until their callers give up, or wait for calls that wait at this gate.%s%s",
			many(int64(sum(r.ended[:])), "call"), inWords(r.over), r.ended[admit.Success], stuckCalls(i, now), all.others(s.Name, now)))
	}
	if r.total > 0 && !s.Draining {
		level, verb := debugpb.Finding_LEVEL_WARNING, "refuses"
		if s.DryRun {
			level, verb = debugpb.Finding_LEVEL_INFO, "would refuse"
		} else if sum(r.refused[admit.Critical][:]) > 0 {
			level = debugpb.Finding_LEVEL_CRITICAL
		}
		text := fmt.Sprintf("It %s %s. ", verb, r.words(s))
		if len(*f) == before { // the finding about a gate that is stuck is the cause
			text += r.remedy(i) + " "
		}
		f.add(level, source, text+lastDecision(i))
	}
	if age := slices.Max(i.Oldest[:]); age >= longWait && idle < stuck {
		f.add(debugpb.Finding_LEVEL_WARNING, source, fmt.Sprintf(
			"The oldest of %s has waited for %s.", many(int64(s.Queue), "waiting call"), inWords(age)))
	}
	if r.stalls > 0 {
		f.add(debugpb.Finding_LEVEL_WARNING, source, fmt.Sprintf(
			"%s %s ended in the last %s, because the clients took no messages. The clients hang or are slow, so look there.",
			many(int64(r.stalls), "stream"), verb(int64(r.stalls), "was", "were"), inWords(r.over)))
	}
	if s.Panics > 0 {
		f.add(debugpb.Finding_LEVEL_INFO, source, fmt.Sprintf(
			"%s of hooks or of the algorithm. Report them as a bug.", many(int64(s.Panics), "panic")))
	}
}

// oldest returns the age of the oldest call that is known.
func oldest(i *admit.Inspection, now time.Time) (age time.Duration) {
	age = slices.Max(i.Oldest[:])
	if len(i.Running) > 0 {
		age = max(age, now.Sub(i.Running[0].Since))
	}
	return age
}

func remain(n int) string {
	if n == 0 {
		return "No call runs any more"
	}
	return many(int64(n), "permit") + " in use until the last handlers return"
}

func waiting(n int) string {
	if n == 0 {
		return "newcomers are refused"
	}
	return callsWait(n)
}

func sum(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// words describes the refusals, the most frequent first.
func (r *recent) words(s *admit.Stats) string {
	type line struct {
		n    uint64
		text string
	}
	var lines []line
	for c := range r.refused {
		for why, n := range r.refused[c] {
			if n > 0 {
				lines = append(lines, line{n, fmt.Sprintf("%s for %s", clean(s.Classes[c]), admit.Reason(why))})
			}
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.text, b.text)) })
	parts := make([]string, 0, 3)
	for _, l := range lines[:min(3, len(lines))] {
		parts = append(parts, fmt.Sprintf("%s a second of class %s", digits(float64(l.n)/r.over.Seconds()), l.text))
	}
	text := strings.Join(parts, ", ")
	if rest := len(lines) - len(parts); rest > 0 {
		text += fmt.Sprintf(", and %s", many(int64(rest), "more kind"))
	}
	return text
}

// lastDecision says where the limit stands and why.
func lastDecision(i *admit.Inspection) string {
	text := fmt.Sprintf("%d of %d permits are in use.", i.Stats.InFlight, i.Stats.Limit)
	if n := len(i.Decisions); n > 0 {
		text += fmt.Sprintf(" The limit was last %s.", i.Decisions[n-1])
	}
	return text
}
