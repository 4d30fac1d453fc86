package main

import (
	"fmt"
	"strings"
	"time"
)

// table returns both fates as one shows them to a colleague.
func (o outcome) table() string {
	var b strings.Builder
	row := func(label string, value func(fate) string) {
		fmt.Fprintf(&b, "%-44s %14s %14s\n", label, value(o.bare), value(o.weir))
	}
	number := func(n int) string {
		if n < 0 {
			return "unknown"
		}
		return fmt.Sprint(n)
	}
	seconds := func(d time.Duration) string {
		if d == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	fmt.Fprintf(&b, "%-44s %14s %14s\n", "", "bare", "weir")
	row("killed for its memory after", func(f fate) string { return seconds(f.Died) })
	row(fmt.Sprintf("peak memory (of %d MiB)", o.memory/mib), func(f fate) string { return fmt.Sprintf("%d MiB", f.Peak/mib) })
	row("payments produced", func(f fate) string { return number(f.Produced) })
	row("paid", func(f fate) string { return number(f.Paid.Distinct) })
	row("paid twice", func(f fate) string { return number(f.twice()) })
	row("lost: acknowledged and not paid", func(f fate) string { return number(f.lost()) })
	row("largest lag at the broker", func(f fate) string { return number(f.MaxLag) })
	row("of which the consumer held, at most", func(f fate) string { return number(f.MaxHeld) })
	row("backlog worked off after the trouble within", func(f fate) string { return seconds(f.Recovered) })
	row("payments a second meanwhile", func(f fate) string { return fmt.Sprintf("%.0f", f.WorkOff) })
	return b.String()
}

// lost is the least number of payments that the broker will deliver to no consumer again.
func (f fate) lost() int { return max(0, f.Settled-f.Paid.Distinct) }

func (f fate) twice() int { return f.Paid.Total - f.Paid.Distinct }

// Signs of a machine without time to spare.
const (
	longestGap  = 4 * sampling // between two samples
	mostStarved = 0.5          // of the time of one processor
)

// busy says why the speed of the consumer after the trouble shows nothing, or nothing.
func (f fate) busy() string {
	switch {
	case f.Gap > longestGap:
		return fmt.Sprintf("%v between two samples, want %v", f.Gap.Round(sampling), sampling)
	case f.Starved > mostStarved:
		return fmt.Sprintf("threads of the consumer waited for a processor for %.1f s in each second", f.Starved)
	}
	return ""
}

// slow reports whether the consumer was too slow after the trouble.
func (f fate) slow() bool {
	return f.Recovered == 0 || f.WorkOff < 1.2*rate || f.Paid.Distinct < f.Produced || f.Settled < f.Produced
}

// judge returns the verdict in a few sentences.
func (o outcome) judge() string {
	f := o.weir
	switch {
	case f.Peak == 0:
		return "No verdict: this system does not say how much memory a process has."
	case f.Before < 0.8*rate:
		return fmt.Sprintf("No verdict: this machine was too busy (%.0f payments a second before the trouble, want %d).", f.Before, rate)
	case f.Died > 0:
		return fmt.Sprintf("Not as promised: with weir the consumer died after %.1f s.", f.Died.Seconds())
	case f.lost() > 0:
		return fmt.Sprintf("Not as promised: with weir %d payments are lost.", f.lost())
	case f.slow() && f.busy() != "":
		return fmt.Sprintf("No verdict: this machine was too busy after the trouble (%s).", f.busy())
	case f.Paid.Distinct < f.Produced:
		return fmt.Sprintf("Not as promised: with weir %d of %d payments were made.", f.Paid.Distinct, f.Produced)
	case f.Settled < f.Produced:
		return fmt.Sprintf("Not as promised: with weir %d payments were made, and the broker has seen %d acknowledgements.",
			f.Paid.Distinct, f.Settled)
	case f.slow():
		return fmt.Sprintf("Not as promised: with weir the backlog was worked off with %.0f payments a second, of which %d were new ones.",
			f.WorkOff, rate)
	case o.bare.Died == 0:
		return "No contrast: " + o.survived() + o.withWeir()
	}
	return "As promised: " + o.died() + o.withWeir()
}

// died tells the fate of a bare consumer that was killed.
func (o outcome) died() string {
	b := o.bare
	s := fmt.Sprintf("the bare consumer is killed %.1f s after the gateway has become slow. ", (b.Died - o.troubleFrom).Seconds())
	if b.lost() > 0 {
		return s + fmt.Sprintf("At least %d payments are lost. ", b.lost())
	}
	return s + fmt.Sprintf("It acknowledges after it has paid, so none of the payments is lost. "+
		"The broker has %d payments for the next consumer, which fetches as fast again. ", b.Produced-b.Settled)
}

// survived tells the fate of a bare consumer that was not killed.
func (o outcome) survived() string {
	b := o.bare
	s := fmt.Sprintf("the bare consumer was not killed here. It took %d of %d MiB at most", b.Peak/mib, o.memory/mib)
	if b.MaxHeld >= 0 {
		s += fmt.Sprintf(" and held %d payments", b.MaxHeld)
	}
	return fmt.Sprintf("%s. It made %d of %d payments, %d twice. ", s, b.Paid.Distinct, b.Produced, b.twice())
}

func (o outcome) withWeir() string {
	f := o.weir
	return fmt.Sprintf("With weir the lag grows at the broker, the consumer takes %d of %d MiB at most, every payment is made, %d twice, "+
		"and the backlog is worked off %.1f s after the gateway is well again.", f.Peak/mib, o.memory/mib, f.twice(), f.Recovered.Seconds())
}
