package ops_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A page is a page of the runbook.
type page struct {
	name  string
	fault string // of the game day that the page is about
	steps []step
}

// A step is one block of commands, and the lines among those that it prints which matter.
type step struct{ commands, prints string }

var (
	about = regexp.MustCompile(`<!-- gameday: (\w+) -->`)
	block = regexp.MustCompile("(?s)```sh\n(.*?)```\n(?:\n```text\n(.*?)```\n)?")
)

func runbook(t testing.TB) (all []page) {
	t.Helper()
	files, err := filepath.Glob("runbook/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("runbook: got %v, %v, want pages", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		p := page{name: filepath.Base(f), fault: "overload"}
		if m := about.FindSubmatch(text); m != nil {
			p.fault = string(m[1])
		} else if p.name != "README.md" {
			t.Errorf("%s: got no comment that names the game day, want one", f)
		}
		for _, m := range block.FindAllSubmatch(text, -1) {
			p.steps = append(p.steps, step{string(m[1]), string(m[2])})
		}
		all = append(all, p)
	}
	return all
}

// Each page answers the five questions, and the first command says what it prints.
func TestPagesAreComplete(t *testing.T) {
	for _, p := range runbook(t) {
		if p.name == "README.md" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("runbook", p.name))
		if err != nil {
			t.Fatal(err)
		}
		at := -1
		for _, part := range []string{"Symptom.", "First command.", "Meaning.", "Change.", "Avoid."} {
			found := bytes.Index(text, []byte("**"+part+"**"))
			if found <= at {
				t.Errorf("%s: got no %q in its place, want the five parts in order", p.name, part)
			}
			at = found
		}
		if len(p.steps) == 0 || p.steps[0].prints == "" {
			t.Errorf("%s: got no first command with its output, want one", p.name)
		}
	}
}

// line is a line of /metrics or of promtool: a series and its value. counted is a line of uniq or awk: a number and
// the name of what is counted.
var (
	line    = regexp.MustCompile(`^(.*\}) (?:=> )?(\S+)(?: @\[.*\])?$`)
	counted = regexp.MustCompile(`^\s*(\d+) (\S+)$`)
)

// read splits a line.
func read(text string) (name, value string, ok bool) {
	if m := line.FindStringSubmatch(text); m != nil {
		return m[1], m[2], true
	}
	if m := counted.FindStringSubmatch(text); m != nil {
		return m[2], m[1], true
	}
	return "", "", false
}

// prints reports whether one of the lines is the wanted one. A value of 0 stands for 0, any other value for any above 0.
func prints(lines []string, want string) bool {
	name, wanted, ok := read(want)
	return ok && slices.ContainsFunc(lines, func(text string) bool {
		same, got, ok := read(text)
		if !ok || same != name {
			return false
		}
		value, err := strconv.ParseFloat(got, 64)
		return err == nil && (value > 0) == (wanted != "0")
	})
}

// The alerts that each fault must cause.
var causes = map[string][]string{
	"none":     nil,
	"overload": {"WeirCriticalRefused", "WeirRefusalsBurnFast"},
	"memory":   {"WeirPressure"},
	"deadlock": {"WeirThroughputZero"},
	"circuit":  {"WeirCircuitFlapping"},
	"stream":   {"WeirStreamStalled"},
	"consumer": {"WeirConsumerLag"},
}

// Each fault fires its alerts, and the commands of the pages about it run and lead to the cause.
func TestRunbook(t *testing.T) {
	promtool := tool(t, "promtool")
	byFault := map[string][]page{}
	for _, p := range runbook(t) {
		byFault[p.fault] = append(byFault[p.fault], p)
	}
	for fault, wanted := range causes {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			s := stage(t, fault, fault == "overload")
			if fault == "none" {
				s.silent(t)
			}
			for _, p := range byFault[fault] {
				for i, step := range p.steps {
					s.follow(t, fmt.Sprintf("%s, command %d", p.name, i+1), step, promtool)
				}
			}
			eventually(t, func() string {
				firing := s.firing(t)
				for _, a := range wanted {
					if !firing[a] {
						return fmt.Sprintf("alerts: got %v, want %s among them", firing, a)
					}
				}
				return ""
			})
		})
	}
	for fault := range byFault {
		if _, ok := causes[fault]; !ok {
			t.Errorf("pages about the fault %q: got no such fault, want one of the game day", fault)
		}
	}
}

// silent watches a healthy system for a while, and fails if an alert fires.
func (s scene) silent(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		if got := s.query(t, "count_over_time(up[1m]) >= 60"); len(got) == 0 {
			return "scrapes: got fewer than 60, want as many"
		}
		return ""
	})
	for _, a := range s.query(t, `count_over_time(ALERTS{alertstate="firing"}[1m])`) {
		t.Errorf("a healthy system: got the alert %s, want none", a.Metric["alertname"])
	}
}

// follow runs a step until it prints what the page says.
func (s scene) follow(t *testing.T, where string, step step, promtool string) {
	t.Helper()
	eventually(t, func() string {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", step.commands)
		cmd.Env = append(os.Environ(), "METRICS="+s.metrics, "PROMETHEUS="+s.prometheus, "PATH="+filepath.Dir(promtool)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%s: got %v, want no error\n%s%s", where, err, step.commands, out)
		}
		lines := strings.Split(string(out), "\n")
		for want := range strings.Lines(step.prints) {
			if want = strings.TrimSpace(want); !prints(lines, want) {
				return fmt.Sprintf("%s: got\n%s\nwant the line\n%s", where, out, want)
			}
		}
		return ""
	})
}

func TestPrints(t *testing.T) {
	for _, c := range []struct {
		got, want string
		is        bool
	}{
		{`a{b="1"} 5`, `a{b="1"} 1`, true},
		{`a{b="1"} 0`, `a{b="1"} 1`, false},
		{`a{b="1"} 0`, `a{b="1"} 0`, true},
		{`a{b="1"} 2`, `a{b="1"} 0`, false},
		{`a{b="2"} 5`, `a{b="1"} 5`, false},
		{`a{b="1"} NaN`, `a{b="1"} 1`, false},
		{`{b="1"} => 0.25 @[1732.1]`, `{b="1"} => 1 @[1]`, true},
		{`other`, `{b="1"} => 1 @[1]`, false},
		{`other`, `other`, false},
		{`     48 _Shop_Buy_Handler.func1`, `16 _Shop_Buy_Handler.func1`, true},
		{`     48 _Shop_Buy_Handler.func1`, `16 _Shop_Browse_Handler.func1`, false},
		{`5 main.(*a).B`, `1 main.(*a).B`, true},
	} {
		if got := prints([]string{"x", c.got}, c.want); got != c.is {
			t.Errorf("prints %q where %q is wanted: got %v, want %v", c.got, c.want, got, c.is)
		}
	}
}
