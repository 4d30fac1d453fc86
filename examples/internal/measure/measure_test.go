package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func read(t *testing.T, args ...string) options {
	t.Helper()
	o, err := parse(args, io.Discard)
	if err != nil {
		t.Fatalf("flags %q: got %v, want none", args, err)
	}
	return o
}

func TestFlags(t *testing.T) {
	for says, args := range map[string][]string{
		"-rounds: got 0":      {"-rounds", "0"},
		"-seconds: got 0.01":  {"-seconds", "0.01"},
		"-only: error":        {"-only", "("},
		"flags only":          {"goodput"},
		"not defined: -short": {"-short"},
	} {
		if _, err := parse(args, io.Discard); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("flags %q: got %v, want an error that says %q", args, err, says)
		}
	}
	if err := run(t.Context(), []string{"-only", "nosuch"}, io.Discard, io.Discard); err == nil {
		t.Error("a table that is not there: got no error, want one")
	}
	if err := run(t.Context(), []string{"-write", t.TempDir() + "/none.md"}, io.Discard, io.Discard); err == nil {
		t.Error("a document that is not there: got no error, want one before anything is measured")
	}
}

// The names and lines are those of go test.
func TestCollect(t *testing.T) {
	const rounds = 3
	values := []string{"0.93", "0.97", "0.951"}
	goodput := &table{pkg: "load", bench: "Goodput", benchtime: "1x", columns: []column{{"goodput/capacity", "goodput", 3}, {"p50-ms", "p50 ms", 1}, {"x", "x", 0}}}
	for _, v := range values {
		out := "goos: linux\nBenchmarkGoodput/service=exponential/load=1/gate=default-2         \t       1\t         " + v + " goodput/capacity\t         9.25 p50-ms\nPASS\n"
		if n := goodput.collect(out); n != 2 {
			t.Errorf("figures of %q: got %d, want 2", out, n)
		}
	}
	want := "    WEIR_BENCH_SECONDS=1.5 go test -run='^$' -bench=Goodput -benchtime=1x -count=3 ./load\n\n" +
		"| | goodput | p50 ms | x |\n|---|---|---|---|\n" +
		"| service exponential, load 1, gate default | 0.951 (0.930 to 0.970) | 9.2 |  |\n"
	if got := goodput.markdown(read(t, "-rounds", "3")); got != want {
		t.Errorf("table: got\n%s\nwant\n%s", got, want)
	}

	harm := &table{pkg: "limit", test: "^(TestHarm|TestX)$", once: true, many: true, columns: []column{{"lost-%", "lost %", 2}, {"limits", "limits", 0}}}
	n := harm.collect("=== RUN   TestHarm\n=== RUN   TestHarm/200/s_of_5_ms\n=== RUN   TestXOfY\n=== ATTR  TestXOfY lost-% 1\n=== ATTR  TestHarm/200/s_of_5_ms lost-% 0.10\n" +
		"=== ATTR  TestHarm/200/s_of_5_ms limits 16 to 32\n    --- PASS: TestHarm/200/s_of_5_ms (0.10s)\n")
	if n != rounds {
		t.Errorf("attributes: got %d, want 3", n)
	}
	want = "    go test -v -run='^(TestHarm|TestX)$' ./limit\n\n| | lost % | limits |\n|---|---|---|\n" +
		"| harm: 200/s of 5 ms | 0.10 | 16 to 32 |\n| x of y | 1.00 |  |\n"
	if got := harm.markdown(read(t)); got != want {
		t.Errorf("table: got\n%s\nwant\n%s", got, want)
	}

	cost := &table{pkg: "p", bench: "A", benchtime: "100ms", cpu: "1,2", columns: []column{{"ns/op", "ns", 0}}}
	cost.collect("BenchmarkA/no_queue     \t   10\t  101.4 ns/op\t  0 B/op\nBenchmarkA/no_queue-2   \t   10\t  140 ns/op\n")
	if got, want := cost.markdown(read(t)), "| no queue, 1 processor | 101 |\n| no queue, 2 processors | 140 |\n"; !strings.HasSuffix(got, want) {
		t.Errorf("table: got\n%s\nwant the rows\n%s", got, want)
	}
}

// The first line of /proc/stat counts guests twice.
func TestTimesOf(t *testing.T) {
	got, ok := timesOf("cpu  100 10 40 800 50 0 5 5 90 9\ncpu0 1 1 1 1 1\n")
	if want := (times{idle: 850, all: 1010}); !ok || got != want {
		t.Errorf("times: got %v and %v, want %v", got, ok, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "cpu 1 2 x 4 5 6 7 8", "intr 1 2 3 4 5 6 7 8"} {
		if _, ok := timesOf(bad); ok {
			t.Errorf("times of %q: got some, want none", bad)
		}
	}
}

// A machine that others use is refused before anything is measured.
func TestBusyMachine(t *testing.T) {
	if _, err := describe(read(t), 0.5, true); err == nil || !strings.Contains(err.Error(), "the machine is busy: 50 %") {
		t.Errorf("on a busy machine: got %v, want an error", err)
	}
	for _, c := range []struct {
		o     options
		share float64
		known bool
		says  string
	}{
		{read(t, "-busy"), 0.5, true, ", 50 % of them in use by others"},
		{read(t), 0.1, true, ", 10 % of them in use by others"},
		{read(t), 0, false, " processors. Rounds: 5, of 1.5 s."},
	} {
		if got, err := describe(c.o, c.share, c.known); err != nil || !strings.Contains(got, c.says) {
			t.Errorf("machine: got %q and %v, want it to say %q", got, err, c.says)
		}
	}
	if share, known := busy(t.Context(), 20*time.Millisecond); known && (share < 0 || share > 1) {
		t.Errorf("share of the processors in use: got %v, want 0 to 1", share)
	}
}

func TestMedian(t *testing.T) {
	c := column{digits: 1}
	for want, values := range map[string][]string{
		"": nil, "2.0": {"2"}, "1.5 (1.0 to 2.0)": {"2", "1"}, "3.0 (-1.0 to 9.0)": {"9", "3", "-1"}, "none": {"none", "1"},
		"0.0": {"0.01", "0.02"},
	} {
		if got := c.cell(values); got != want {
			t.Errorf("cell of %q: got %q, want %q", values, got, want)
		}
	}
}

func TestFill(t *testing.T) {
	a := &table{name: "a", pkg: "p", bench: "A", benchtime: "1x", columns: []column{{"x", "x", 0}}}
	a.add("row", "x", "1")
	const document = "# Title\n<!-- measured: machine -->\nold\n<!-- end -->\nprose\n<!-- measured: a -->\n<!-- end -->\nend\n"
	o := read(t)
	got, err := fill(document, []*table{a}, "new machine\n", o)
	want := "# Title\n<!-- measured: machine -->\nnew machine\n<!-- end -->\nprose\n<!-- measured: a -->\n" + a.markdown(o) + "<!-- end -->\nend\n"
	if err != nil || got != want {
		t.Errorf("document: got %v and\n%s\nwant\n%s", err, got, want)
	}
	if again, err := fill(got, []*table{a}, "new machine\n", o); err != nil || again != got {
		t.Errorf("document filled again: got %v and\n%s\nwant it unchanged", err, again)
	}
	for name, document := range map[string]string{
		"no machine":  "<!-- measured: a -->\n<!-- end -->\n",
		"no table":    "<!-- measured: machine -->\n<!-- end -->\n",
		"without end": "<!-- measured: machine -->\n<!-- end -->\n<!-- measured: a -->\n",
	} {
		if _, err := fill(document, []*table{a}, "", o); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

// Every table has a place of its own in the document, and every place a table.
func TestTheDocumentHasAllTables(t *testing.T) {
	data, err := os.ReadFile("../../../docs/measurements.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range append(tables(), &table{name: machineName}) {
		if n := strings.Count(string(data), fmt.Sprintf(beginning, of.name)); n != 1 {
			t.Errorf("places of table %s: got %d, want 1", of.name, n)
		}
	}
	if got, want := strings.Count(string(data), "<!-- measured: "), len(tables())+1; got != want {
		t.Errorf("places: got %d, want %d", got, want)
	}
}
