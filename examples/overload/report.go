package main

import "fmt"

func printHead() {
	fmt.Println("      load  offered/s  goodput/s  of capacity    p50 ms   p99 ms  refused/s  wasted work  peak heap")
}

func printRow(r Row) {
	fmt.Printf("%s %4gx %10.0f %10.0f %11.0f %% %9s %8s %10.0f %10.0f %% %6.0f MiB\n",
		r.Run, r.Load, r.Offered, r.Goodput, r.Share*100, ms(r.P50), ms(r.P99), r.Refused, r.Wasted*100, r.Heap)
}

func ms(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", v)
}

// reading says what one should notice, from what was measured.
func (s *show) reading() string {
	top := loads[len(loads)-1]
	without, with := s.row(bare, top), s.row(withWeir, top)
	text := fmt.Sprintf("At %gx its capacity the bare server does %.0f %% of what it could in time; "+
		"with weir's defaults %.0f %%.", top, without.Share*100, with.Share*100)
	if knee := s.firstBelow(bare, 0.5); knee > 0 {
		text += fmt.Sprintf("\nThe bare one breaks at %gx: %.0f %% of its work at %gx is for callers that have "+
			"given up; with weir %.0f %%.", knee, without.Wasted*100, top, with.Wasted*100)
	}
	if w := s.warning(); w != "" {
		text += "\n" + w
	}
	return text
}

// warning says if the machine was too busy for what it was to show: then calls
// wait for a core before they reach the server, which no server can help. Only
// the rows with weir count: a bare server that collapses keeps the machine busy
// by itself.
func (s *show) warning() string {
	var worst Row
	for _, load := range loads {
		if r := s.row(withWeir, load); r.Late > worst.Late {
			worst = r
		}
	}
	if worst.Late <= tooMany {
		return ""
	}
	return fmt.Sprintf("But this machine was too busy to tell: %.0f %% of the callers at %gx with weir set off more than %v late. "+
		"Run it again when it is quiet.", worst.Late*100, worst.Load, heldUp)
}

// firstBelow is the first load at which a run served less than this share of
// what was asked or of its capacity, whichever is less; 0 if it never did.
func (s *show) firstBelow(run string, share float64) float64 {
	for _, load := range loads {
		if s.row(run, load).Share < share*min(load, 1) {
			return load
		}
	}
	return 0
}
