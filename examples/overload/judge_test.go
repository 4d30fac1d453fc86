package main

import (
	"bytes"
	"strings"
	"testing"
)

// good returns the rows of a demonstration that went as it should.
func good() (rows []Row) {
	for _, a := range acts {
		for _, load := range a.Loads {
			b := Row{
				Act: a.Name, Run: bare, Load: load, Capacity: 200, Offered: 200 * load, Calls: 1000, Share: min(load, 1),
				Served: 1, P99: 190, Stretch: 1.1, Drift: 1.05,
			}
			w := b
			w.Run, w.P99 = withWeir, 192
			if load > 1 {
				b.Share, b.Served, b.Wasted = 0, 0, 1
				w.Share, w.Served, w.Refused = 0.9, 0.9/load, int(1000-900/load)
			}
			rows = append(rows, b, w)
		}
	}
	return rows
}

// with changes the rows of an act, a run and a load.
func with(act, run string, load float64, change func(*Row)) []Row {
	rows := good()
	for i := range rows {
		if r := &rows[i]; r.Act == act && r.Run == run && r.Load == load {
			change(r)
		}
	}
	return rows
}

func TestJudge(t *testing.T) {
	share := func(v float64) func(*Row) { return func(r *Row) { r.Share = v } }
	for name, tt := range map[string]struct {
		rows   []Row
		broken string // the act in which weir does not do as promised
	}{
		"all is well":                            {good(), ""},
		"waits: 8x lost":                         {with("waits", withWeir, 8, share(0.1)), "waits"},
		"waits: just too little at 2x":           {with("waits", withWeir, 2, share(keepsWaiting-0.01)), "waits"},
		"waits: just enough at 2x":               {with("waits", withWeir, 2, share(keepsWaiting)), ""},
		"waits: lost at 1x":                      {with("waits", withWeir, 1, share(0.5)), "waits"},
		"waits: few came at 1x, all were served": {with("waits", withWeir, 1, func(r *Row) { r.Share, r.Offered = 0.8, 160 }), ""},
		"waits: the bare server did well, too":   {with("waits", bare, 8, share(0.9)), ""},
		"computes: lost at 2x":                   {with("computes", withWeir, 2, share(keepsComputing-0.01)), "computes"},
		"computes: enough":                       {with("computes", withWeir, 8, share(keepsComputing)), ""},
		"harmless: one refused":                  {with("harmless", withWeir, 0.5, func(r *Row) { r.Refused = 1 }), "harmless"},
		"harmless: nobody came":                  {with("harmless", withWeir, 0.5, func(r *Row) { r.Calls = 0 }), "harmless"},
		"harmless: the bare server fails":        {with("harmless", bare, 0.5, func(r *Row) { r.Refused = 1 }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := judge(tt.rows)
			if v.TooBusy != "" || len(v.Findings) != len(acts) {
				t.Fatalf("verdict: got %+v, want a finding for each of %d acts", v, len(acts))
			}
			for _, f := range v.Findings {
				if want := f.Act != tt.broken; f.Kept != want {
					t.Errorf("%s: got kept %v, want %v (%s)", f.Act, f.Kept, want, f.Text)
				}
			}
		})
	}
}

// An act without rows shows nothing, and so keeps no promise.
func TestJudgeNothing(t *testing.T) {
	for _, f := range judge(nil).Findings {
		if f.Kept {
			t.Errorf("%s without rows: got kept, want not", f.Act)
		}
	}
}

// Any row on a busy machine, bare or with weir, leaves no verdict at all.
func TestTooBusy(t *testing.T) {
	late := func(v float64) func(*Row) { return func(r *Row) { r.Late = v } }
	stretch := func(v float64) func(*Row) { return func(r *Row) { r.Stretch = v } }
	drift := func(v float64) func(*Row) { return func(r *Row) { r.Drift = v } }
	for name, tt := range map[string]struct {
		rows []Row
		want string // part of the reason; nothing if the machine is quiet enough
	}{
		"quiet":                   {good(), ""},
		"some callers late":       {with("waits", withWeir, 8, late(tooLate)), ""},
		"many late":               {with("waits", withWeir, 4, late(0.4)), "40 % of the callers at 4x set off more than 75ms late"},
		"many late, bare":         {with("computes", bare, 8, late(0.4)), "at 8x"},
		"many late, harmless":     {with("harmless", withWeir, 0.5, late(0.4)), "at 0.5x"},
		"half of a processor":     {with("computes", withWeir, 2, stretch(2)), ""},
		"a quarter of one":        {with("computes", withWeir, 2, stretch(4)), "only 25 % of a processor"},
		"a little more, then":     {with("computes", bare, 2, drift(2)), ""},
		"suddenly thrice as much": {with("computes", bare, 2, drift(3)), "changed by a factor of 3.0"},
		"two reasons, both named": {append(with("waits", bare, 1, late(0.5)), with("computes", bare, 1, stretch(5))...), "late; a server"},
	} {
		t.Run(name, func(t *testing.T) {
			v := judge(tt.rows)
			if tt.want == "" && v.TooBusy != "" {
				t.Errorf("a machine that is quiet enough: got %q, want a verdict", v.TooBusy)
			}
			if !strings.Contains(v.TooBusy, tt.want) || (v.TooBusy != "" && v.Findings != nil) {
				t.Errorf("verdict: got %+v, want no finding, and %q", v, tt.want)
			}
		})
	}
}

// The verdict is said in words that a script can look for, and never beside an
// excuse.
func TestWriteVerdict(t *testing.T) {
	write := func(v Verdict) string {
		var b bytes.Buffer
		writeVerdict(&b, v)
		return b.String()
	}
	if got := write(judge(good())); strings.Count(got, "  as promised:") != len(acts) || strings.Contains(got, "NOT") {
		t.Errorf("verdict: got %q, want %d acts as promised", got, len(acts))
	}
	if got := write(judge(with("harmless", withWeir, 0.5, func(r *Row) { r.Refused = 3 }))); !strings.Contains(got,
		"NOT as promised: A harmless day. At 0.5x weir refuses 3 of 1000 calls.") {
		t.Errorf("verdict: got %q, want it to say what was refused", got)
	}
	if got := write(judge(with("waits", withWeir, 2, func(r *Row) { r.Share = 0.3 }))); !strings.Contains(got,
		"with weir 90 %. At 2x weir does 30 %, and should do 75 %.\n") {
		t.Errorf("verdict: got %q, want it to say at which load weir fails", got)
	}
	got := write(judge(with("waits", bare, 1, func(r *Row) { r.Late = 1 })))
	if !strings.HasPrefix(got, "No verdict: ") || strings.Contains(got, "promised") {
		t.Errorf("verdict of a busy machine: got %q, want none", got)
	}
}

// What a row of a computing server is worth is corrected for what the machine gave
// it.
func TestBetween(t *testing.T) {
	for name, tt := range map[string]struct{ row, want Row }{ // 100 calls a second were served, as half of 200
		"as much as before and after": {Row{got: 100 * burns.Seconds()}, Row{Capacity: 150, Share: 100. / 150}},
		"more":                        {Row{got: 180 * burns.Seconds()}, Row{Capacity: 180, Share: 100. / 180}},
		"nobody knows":                {Row{}, Row{Capacity: 150, Share: 100. / 150}},
	} {
		r := tt.row
		r.Capacity, r.Share = 200, 0.5
		r.between(200, 100)
		tt.want.got, tt.want.Stretch, tt.want.Drift = tt.row.got, 1/burns.Seconds()/100, 2
		if d := r.Share - tt.want.Share; d > 1e-9 || d < -1e-9 {
			t.Errorf("%s: got %v of capacity, want %v", name, r.Share, tt.want.Share)
		}
		if r.Share = tt.want.Share; r != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, r, tt.want)
		}
	}
}
