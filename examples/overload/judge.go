package main

import (
	"fmt"
	"strings"
)

// The machine must not disturb more than this, or the figures show the machine and not the
// server. Beside two busy loops on two processors no caller was late, a
// computing server was stretched by up to 2.6, and weir's share of its capacity was
// as on a quiet machine. Beside ten, 76 % of the callers were late and the stretch
// was 3.3.
const (
	tooLate      = 0.1 // share of the callers that set off late
	tooStretched = 3.0 // a server that computes has a third of a processor
	tooUnsteady  = 2.5 // ratio of two measurements of the stretch
)

// These are the promises of weir. In the long run it keeps more.
const (
	keepsWaiting   = 0.75 // share of the capacity, at any load from 1 on, within seconds of a cold start
	keepsComputing = 0.6  // less, because refusals cost the same processor
)

// A Finding is the result of an act.
type Finding struct {
	Act  string `json:"act"`
	Kept bool   `json:"kept"` // weir kept its promise
	Text string `json:"text"`
}

// A Verdict is the result of a demonstration, or the reason that there is none.
type Verdict struct {
	Findings []Finding `json:"findings"`
	TooBusy  string    `json:"tooBusy"` // the reason that there are no findings
}

// judge returns the verdict on the rows of a demonstration.
func judge(rows []Row) Verdict {
	if why := tooBusy(rows); why != "" {
		return Verdict{TooBusy: why}
	}
	var v Verdict
	for _, a := range acts {
		find := judgeOverload
		if a.harmless() {
			find = judgeHarmless
		}
		v.Findings = append(v.Findings, find(a, rows))
	}
	return v
}

// judgeOverload checks that weir keeps the goodput at every load. It shows the bare server at
// the highest load.
func judgeOverload(a act, rows []Row) Finding {
	promised := keepsWaiting
	if a.Computes {
		promised = keepsComputing
	}
	f := Finding{Act: a.Name, Kept: true}
	top := a.Loads[len(a.Loads)-1]
	without, _ := find(rows, a.Name, bare, top)
	with, _ := find(rows, a.Name, withWeir, top)
	f.Text = fmt.Sprintf("At %gx the bare server does %s of what it can in time, with weir %s.",
		top, percent(without.Share), percent(with.Share))
	for _, load := range a.Loads {
		r, ok := find(rows, a.Name, withWeir, load)
		if ok && r.Share >= promised*min(1, r.Offered/r.Capacity) { // at 1x fewer calls may have come
			continue
		}
		f.Kept = false
		f.Text += fmt.Sprintf(" At %gx weir does %s, and should do %s.", load, percent(r.Share), percent(promised))
	}
	return f
}

// judgeHarmless checks that weir refuses nothing.
func judgeHarmless(a act, rows []Row) Finding {
	load := a.Loads[0]
	without, _ := find(rows, a.Name, bare, load)
	with, ok := find(rows, a.Name, withWeir, load)
	return Finding{a.Name, ok && with.Calls > 0 && with.Refused == 0, fmt.Sprintf(
		"At %gx weir refuses %d of %d calls. The slowest 1 %% take %.0f ms bare, %.0f ms with weir.",
		load, with.Refused, with.Calls, without.P99, with.P99)}
}

// tooBusy returns the reason that the machine was too busy to measure, or "".
func tooBusy(rows []Row) string {
	var late, stretched, unsteady Row
	for _, r := range rows {
		if r.Late > late.Late {
			late = r
		}
		if r.Stretch > stretched.Stretch {
			stretched = r
		}
		if r.Drift > unsteady.Drift {
			unsteady = r
		}
	}
	var why []string
	if late.Late > tooLate {
		why = append(why, fmt.Sprintf("%s of the callers at %gx set off more than %v late", percent(late.Late), late.Load, patience/10))
	}
	if stretched.Stretch > tooStretched {
		why = append(why, fmt.Sprintf("a server that computes got only %s of a processor", percent(1/stretched.Stretch)))
	}
	if unsteady.Drift > tooUnsteady {
		why = append(why, fmt.Sprintf("what it got changed by a factor of %.1f within seconds", unsteady.Drift))
	}
	return strings.Join(why, "; ")
}

// find returns the row of an act, a run and a load.
func find(rows []Row, act, run string, load float64) (Row, bool) {
	for _, r := range rows {
		if r.Act == act && r.Run == run && r.Load == load {
			return r, true
		}
	}
	return Row{}, false
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
