package main

import (
	"strings"
	"testing"
	"time"
)

// fates returns an outcome as promised. The bare consumer lost payments.
func fates() outcome {
	return outcome{
		usualPlan, usualLoad,
		fate{
			Died: 10 * time.Second, Peak: usualLoad.memory + 1, Paid: ledger{100, 100}, Settled: 300, Produced: 900, Before: rate, MaxLag: 600, MaxHeld: -1,
		},
		fate{
			Peak: usualLoad.memory / 2, Paid: ledger{901, 900}, Settled: 900, Produced: 900, Before: rate, MaxLag: 500, MaxHeld: 40,
			Recovered: time.Second, WorkOff: 900,
		},
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(bare, weir *fate)
		want   []string // the beginning, and other parts of the verdict
	}{
		"all is well": {func(*fate, *fate) {}, []string{"As promised: ", "killed 6.0 s after", "At least 200 payments are lost", "1 twice"}},
		"nothing is lost": {
			func(b, _ *fate) { b.Settled = 90 },
			[]string{"As promised: ", "none of the payments is lost", "has 810 payments for the next consumer"},
		},
		"no memory": {func(b, w *fate) { b.Peak, b.Died, w.Peak = 0, 0, 0 }, []string{"No verdict: "}},
		"bare survives": {
			func(b, _ *fate) { b.Died, b.Peak, b.MaxHeld = 0, usualLoad.memory/2, 70 },
			[]string{"No contrast: the bare consumer was not killed", "40 of 80 MiB", "held 70", "With weir the lag grows"},
		},
		"bare survives, held unknown": {func(b, _ *fate) { b.Died = 0 }, []string{"No contrast: ", "MiB at most. It made 100 of 900 payments, 0 twice"}},
		"busy machine":                {func(_, w *fate) { w.Before = rate / 2 }, []string{"No verdict: "}},
		"weir dies":                   {func(_, w *fate) { w.Died = time.Second }, []string{"Not as promised: "}},
		"weir does not pay":           {func(_, w *fate) { w.Paid.Distinct-- }, []string{"Not as promised: "}},
		"weir loses":                  {func(_, w *fate) { w.Settled = 901 }, []string{"Not as promised: "}},
		"weir does not acknowledge":   {func(_, w *fate) { w.Settled-- }, []string{"Not as promised: ", "899 acknowledgements"}},
		"weir is slow on a busy machine": {
			func(_, w *fate) { w.WorkOff, w.Gap = rate, longestGap+1 },
			[]string{"No verdict: ", "800ms between two samples, want 200ms"},
		},
		"weir never ends on a busy machine": {func(_, w *fate) { w.Recovered, w.Gap = 0, longestGap+1 }, []string{"No verdict: "}},
		"weir is slow without a processor": {
			func(_, w *fate) { w.WorkOff, w.Starved = rate, 1.25 },
			[]string{"No verdict: ", "waited for a processor for 1.2 s in each second"},
		},
		"weir never ends without a processor": {
			func(_, w *fate) { w.Recovered, w.Paid.Distinct, w.Settled, w.Starved = 0, 800, 700, 1 }, []string{"No verdict: "},
		},
		"weir loses without a processor":     {func(_, w *fate) { w.Settled, w.Starved, w.Gap = 901, 1, longestGap+1 }, []string{"Not as promised: "}},
		"weir dies without a processor":      {func(_, w *fate) { w.Died, w.Starved = time.Second, 1 }, []string{"Not as promised: "}},
		"weir is slow with time to spare":    {func(_, w *fate) { w.WorkOff, w.Starved = rate, mostStarved }, []string{"Not as promised: "}},
		"weir is well without a processor":   {func(_, w *fate) { w.Starved = 1 }, []string{"As promised: "}},
		"weir is well on a busy machine":     {func(_, w *fate) { w.Gap = longestGap + 1 }, []string{"As promised: "}},
		"weir is slow":                       {func(_, w *fate) { w.WorkOff = rate }, []string{"Not as promised: "}},
		"never recovered":                    {func(_, w *fate) { w.Recovered = 0 }, []string{"Not as promised: "}},
		"bare survives, and weir loses":      {func(b, w *fate) { b.Died, w.Settled = 0, 901 }, []string{"Not as promised: "}},
		"bare survives, and weir never ends": {func(b, w *fate) { b.Died, w.Recovered = 0, 0 }, []string{"Not as promised: "}},
	} {
		t.Run(name, func(t *testing.T) {
			o := fates()
			c.change(&o.bare, &o.weir)
			got := o.judge()
			if !strings.HasPrefix(got, c.want[0]) {
				t.Errorf("judge = %q, want %q...", got, c.want[0])
			}
			for _, want := range c.want[1:] {
				if !strings.Contains(got, want) {
					t.Errorf("judge = %q, want it to say %q", got, want)
				}
			}
		})
	}
}

func TestTable(t *testing.T) {
	got := fates().table()
	rows := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(rows) != 11 {
		t.Fatalf("table = %q, want 11 lines", got)
	}
	for i, want := range map[int][]string{1: {"10.0 s", "-"}, 5: {"0", "1"}, 6: {"200", "0"}, 7: {"600", "500"}, 8: {"unknown", "40"}} {
		if got := strings.Join(strings.Fields(rows[i][44:]), " "); got != strings.Join(want, " ") {
			t.Errorf("line %d = %q, want the values %q", i, rows[i], want)
		}
	}
}

func TestSpeed(t *testing.T) {
	p := usualPlan
	for at, want := range map[time.Duration]time.Duration{0: usual, p.troubleFrom: slowed, p.troubleTo - 1: slowed, p.troubleTo: usual} {
		if got := p.speed(at); got != want {
			t.Errorf("speed(%v) = %v, want %v", at, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string // parts of the error; none for no error
	}{
		"defaults":       {nil, nil},
		"another broker": {[]string{"-broker", "pigeon", "-html", "/no/such/dir/x.html"}, []string{`"pigeon"`, "kafka", "-html"}},
		"an argument":    {[]string{"nats"}, []string{`"nats"`, "flags only"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(c.args)
			if len(c.want) == 0 && err != nil {
				t.Errorf("parse = %v, want no error", err)
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("parse = %v, want an error that says %q", err, want)
				}
			}
		})
	}
}

// A broker that is not installed is an error that says how to install it.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", "")
	t.Chdir(t.TempDir())
	for name, want := range map[string]string{
		"kafka": "", "nats": "", "rabbitmq": "package rabbitmq-server", "redis": "package redis-server", "sqs": "make node",
	} {
		_, err := parse([]string{"-broker", name})
		if want == "" && err != nil {
			t.Errorf("-broker %s: got %v, want no error", name, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("-broker %s: got %v, want an error that says %q", name, err, want)
		}
	}
}
