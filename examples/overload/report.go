package main

import (
	"fmt"
	"io"
)

// writeHead begins the table of an act.
func writeHead(w io.Writer, a act) {
	what := fmt.Sprintf("%d calls at once, %v each: it can serve %.0f a second", workers, waits, workers/waits.Seconds())
	if a.Computes {
		what = fmt.Sprintf("%v of hashing on one processor: what it can serve is measured around each step", burns)
	}
	fmt.Fprintf(w, "%s (%s)\n\n", a.Title, what)
	of := "   of capacity"
	if a.harmless() {
		of = "  of all calls"
	}
	fmt.Fprintln(w, "               served in time       slowest 1 %    wasted work    refused    peak heap")
	fmt.Fprintln(w, "              ", of, "               ms                                MiB")
	fmt.Fprintf(w, "load  calls/s %7s %7s %8s %8s %7s %6s %10s %6s %5s\n",
		bare, withWeir, bare, withWeir, bare, withWeir, withWeir, bare, withWeir)
}

// writeRows writes the line of a load.
func writeRows(w io.Writer, a act, rows [2]Row) {
	b, r := rows[0], rows[1]
	if a.harmless() {
		b.Share, r.Share = b.Served, r.Served
	}
	fmt.Fprintf(w, "%3gx %8.0f %7s %7s %8s %8s %7s %6s %10s %6.0f %5.0f\n", r.Load, r.Offered,
		percent(b.Share), percent(r.Share), ms(b.P99), ms(r.P99), percent(b.Wasted), percent(r.Wasted),
		percent(ratio(r.Refused, r.Calls)), b.Heap, r.Heap)
}

func ms(v float64) string {
	if v == 0 {
		return "-" // no call was served
	}
	return fmt.Sprintf("%.0f", v)
}

// writeVerdict writes the findings, or the reason that there are none.
func writeVerdict(w io.Writer, v Verdict) {
	if v.TooBusy != "" {
		fmt.Fprintf(w, "No verdict: this machine is too busy to measure (%s).\n", v.TooBusy)
		return
	}
	fmt.Fprintln(w, "Verdict")
	for i, a := range acts {
		f := v.Findings[i]
		word := "as promised:    "
		if !f.Kept {
			word = "NOT as promised:"
		}
		fmt.Fprintf(w, "  %s %s. %s\n", word, a.Title, f.Text)
	}
}
