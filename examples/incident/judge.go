package main

import (
	"fmt"
	"strings"
	"time"
)

const mib = 1 << 20

// table returns both fates as one shows them to a colleague.
func table(bare, weir fate) string {
	var b strings.Builder
	row := func(what string, value func(fate) string) {
		fmt.Fprintf(&b, "%-44s %14s %14s\n", what, value(bare), value(weir))
	}
	fmt.Fprintf(&b, "%-44s %14s %14s\n", "", "bare", "weir")
	row("killed for its memory after", func(f fate) string {
		if f.Died == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f s", f.Died.Seconds())
	})
	row(fmt.Sprintf("peak memory (of %d MiB)", memory/mib), func(f fate) string { return fmt.Sprintf("%d MiB", f.Peak/mib) })
	row("payments produced", func(f fate) string { return fmt.Sprint(f.Produced) })
	row("paid", func(f fate) string { return fmt.Sprint(f.Paid.Distinct) })
	row("paid twice", func(f fate) string { return fmt.Sprint(f.Paid.Total - f.Paid.Distinct) })
	row("lost: committed and not paid", func(f fate) string { return fmt.Sprint(f.lost()) })
	row("largest lag at the broker", func(f fate) string { return fmt.Sprint(f.MaxLag) })
	row("backlog worked off after the trouble within", func(f fate) string {
		if f.Recovered == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f s", f.Recovered.Seconds())
	})
	row("payments a second meanwhile", func(f fate) string { return fmt.Sprintf("%.0f", f.WorkOff) })
	return b.String()
}

// lost is the least number of payments that no consumer of the group will see again.
func (f fate) lost() int { return max(0, f.Committed-f.Paid.Distinct) }

// judge returns the verdict in a sentence or two.
func judge(bare, weir fate) string {
	switch {
	case bare.Peak == 0:
		return "No verdict: this system does not say how much memory a process has."
	case weir.Before < 0.8*rate || bare.Died == 0:
		return fmt.Sprintf("No verdict: this machine was too busy (%.0f payments a second before the trouble, want %d).", weir.Before, rate)
	case weir.Died > 0:
		return fmt.Sprintf("Not as promised: with weir the consumer died after %.1f s.", weir.Died.Seconds())
	case weir.Paid.Distinct < weir.Produced || weir.lost() > 0:
		return fmt.Sprintf("Not as promised: with weir %d of %d payments were made.", weir.Paid.Distinct, weir.Produced)
	case weir.Recovered == 0 || weir.WorkOff < 1.2*rate:
		return fmt.Sprintf("Not as promised: with weir the backlog was worked off with %.0f payments a second, of which %d were new ones.",
			weir.WorkOff, rate)
	}
	return fmt.Sprintf("As promised: the bare consumer is killed %.1f s after the gateway has become slow, "+
		"and at least %d payments are lost. "+
		"With weir the lag grows at the broker, the consumer takes %d of %d MiB at most, every payment is made, %d twice, "+
		"and the backlog is worked off %.1f s after the gateway is well again.",
		(bare.Died - troubleFrom).Round(100*time.Millisecond).Seconds(), bare.lost(), weir.Peak/mib, memory/mib,
		weir.Paid.Total-weir.Paid.Distinct, weir.Recovered.Seconds())
}
