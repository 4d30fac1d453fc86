package debug

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/admit"
)

// gates are all gates of a snapshot.
type gates []admit.Inspection

// others says how the other gates are doing. A gate that is stuck while they are idle does
// not wait for them. A full gate where calls end and none waits is not stuck either.
func (g gates) others(than string, now time.Time) string {
	var idle, full []string
	for n := range g {
		s := &g[n].Stats
		switch {
		case s.Name == than:
		case s.Utilization() >= 1 && (s.Queue > 0 || now.Sub(g[n].LastEnd) >= stuck):
			full = append(full, clean(s.Name))
		case s.Utilization() < 1 && s.Queue == 0:
			idle = append(idle, clean(s.Name))
		}
	}
	switch {
	case len(full) > 0:
		return fmt.Sprintf(" Also full: %s. Begin with the one that the others call.", some(full))
	case len(idle) > 0:
		return fmt.Sprintf(" The other gates (%s) have permits to spare, so it does not wait for them. "+
			"Suspect calls that need a second permit of this gate, which interceptors.WithPropagation "+
			"and ClientConfig.Propagate let pass, and resources without a gate.", some(idle))
	}
	return ""
}

// held says how much work is held here. Memory that grows with little work is used elsewhere.
// Messages is the number of messages of streams and brokers that were not consumed.
func (g gates) held(messages int64) string {
	running, waiting, limit := 0, 0, 0
	for n := range g {
		s := &g[n].Stats
		running, waiting, limit = running+s.InFlight, waiting+s.Queue, limit+s.Limit
	}
	text := fmt.Sprintf("Of %[2]d permits %[1]d are in use, %[3]s, and %[4]s not consumed by streams and brokers.",
		running, limit, callsWait(waiting), are(messages, "message"))
	if waiting == 0 && 2*running < limit {
		text += " That is little work. If memory runs out, something else keeps it, and a heap profile shows what."
	}
	return text
}

func callsWait(n int) string { return many(int64(n), "call") + " " + verb(int64(n), "waits", "wait") }

// stuckCalls names the methods of the calls that run and wait at a gate that is stuck. Running
// calls that are not listed cannot be named.
func stuckCalls(i *admit.Inspection, now time.Time) string {
	var b strings.Builder
	switch early := i.Unlisted; {
	case len(i.Running) == 0:
		fmt.Fprint(&b, " The running calls began while nobody looked at this page, so their methods are not known. "+
			"A goroutine dump shows where they are.")
	case early > 0:
		fmt.Fprintf(&b, " Running: %s. Not listed: %s of calls that began while nobody looked, or that are too many to list.",
			methods(i.Running, now), many(int64(early), "permit"))
	default:
		fmt.Fprintf(&b, " Running: %s.", methods(i.Running, now))
	}
	switch listed := len(i.Waiting); {
	case listed == 0:
	case listed < i.Stats.Queue:
		fmt.Fprintf(&b, " The %d that have waited longest: %s.", listed, methods(i.Waiting, now))
	default:
		fmt.Fprintf(&b, " Waiting: %s.", methods(i.Waiting, now))
	}
	return b.String()
}

// mostNamed bounds the names that a finding has.
const mostNamed = 3

// some returns the first names, and the number of the others.
func some(names []string) string {
	text := strings.Join(names[:min(mostNamed, len(names))], ", ")
	if more := len(names) - mostNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// methods says which methods calls are of, the most frequent first, and the age of the oldest call
// of each. A call that waits for as long as nothing moves is often one that a stuck call makes.
func methods(all []admit.CallState, now time.Time) string {
	type group struct {
		method string
		n      int
		age    time.Duration
	}
	at := map[string]int{}
	var groups []group
	for i := range all {
		name := clean(all[i].Method)
		n, ok := at[name]
		if !ok {
			n = len(groups)
			at[name], groups = n, append(groups, group{method: name})
		}
		groups[n].n++
		groups[n].age = max(groups[n].age, now.Sub(all[i].Since))
	}
	slices.SortFunc(groups, func(a, b group) int { return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.method, b.method)) })
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = fmt.Sprintf("%d × %s (up to %s)", g.n, orUnnamed(g.method), inWords(g.age))
	}
	return some(names)
}

func orUnnamed(method string) string {
	if method == "" {
		return "(unnamed)"
	}
	return method
}
