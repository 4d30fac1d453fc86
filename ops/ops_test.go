package ops_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A rule is an alert or a recording rule.
type rule struct {
	Alert, Record string
	Expr          string
	For           string
	Labels        map[string]string
	Annotations   map[string]string
}

func (r rule) name() string { return r.Alert + r.Record }

// readYAML reads a file of this directory.
func readYAML(t testing.TB, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: got %v, want YAML", name, err)
	}
}

// rules returns the rules of alerts.yml, in order.
func rules(t testing.TB) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	readYAML(t, "alerts.yml", &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("alerts.yml: got no rule, want some")
	}
	return all
}

func alerts(t testing.TB) (all []rule) {
	t.Helper()
	for _, r := range rules(t) {
		if r.Alert != "" {
			all = append(all, r)
		}
	}
	return all
}

// tool returns the path of a program of Debian's package prometheus, or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("WEIR_PROMETHEUS") == "required" {
		t.Fatalf("got no %s, want it (apt-get install prometheus)", name)
	}
	if err != nil {
		t.Skipf("NOT CHECKED: %s is not installed (apt-get install prometheus)", name)
	}
	return path
}

// promtool runs promtool and returns its output.
func promtool(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, "promtool"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %s: got %v, want no error\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestRulesAreValid(t *testing.T) {
	if out := promtool(t, "check", "rules", "alerts.yml"); !strings.Contains(out, "SUCCESS") {
		t.Errorf("promtool check rules: got %q, want SUCCESS", out)
	}
}

// Debian's promtool reads no native histograms in tests. TestRulesOnNativeHistograms covers those.
func TestRules(t *testing.T) {
	if out := promtool(t, "test", "rules", "alerts_test.yml"); !strings.Contains(out, "SUCCESS") {
		t.Errorf("promtool test rules: got %q, want SUCCESS", out)
	}
}

// Each alert has a test in which it fires and then resolves, and one in which it does not fire. An alert that reads a
// histogram has them for native histograms, too.
func TestEachAlertHasItsTests(t *testing.T) {
	classic, native := ruleTests(t, "alerts_test.yml"), ruleTests(t, "alerts_native_test.yml")
	reads := readHistograms(t)
	for _, a := range alerts(t) {
		for _, missing := range untested(a.Alert, classic) {
			t.Errorf("%s: got no test in which it %s, want one", a.Alert, missing)
		}
		if !reads[a.Alert] {
			continue
		}
		for _, missing := range untested(a.Alert, native) {
			t.Errorf("%s: got no test with native histograms in which it %s, want one", a.Alert, missing)
		}
	}
	for file, tests := range map[string][]ruleTest{"alerts_test.yml": classic, "alerts_native_test.yml": native} {
		for _, test := range tests {
			for _, missing := range absent(t, test) {
				t.Errorf("%s: %s: got no series of %s, want one, or the alert is silent whatever it asks", file, test.Name, missing)
			}
			for _, s := range test.Series {
				of, _, _ := strings.Cut(s.Series, "{")
				if strings.Contains(s.Values, "{{") != (of == waits && file == "alerts_native_test.yml") {
					t.Errorf("%s: %s: got %s with the values %s, want native histograms there and only there", file, test.Name, of, s.Values)
				}
			}
		}
	}
	if !reads["WeirWaitLong"] || reads["WeirQueueFull"] {
		t.Errorf("alerts that read histograms: got %v, want WeirWaitLong, and not WeirQueueFull", reads)
	}
}

// waits is the histogram, and plain the name of a metric without what a classic histogram adds.
const waits = "weir_wait_seconds"

func plain(metric string) string {
	if strings.HasPrefix(metric, waits) {
		return waits
	}
	return metric
}

// absent returns the metrics that the alerts of a test read, themselves or by a recorded rule, and that it has no series
// of. Without them an alert does not fire, whatever its expression. A test in which an alert fires has what it needs.
func absent(t *testing.T, test ruleTest) (missing []string) {
	t.Helper()
	fed, exprs := map[string]bool{}, map[string]string{}
	for _, s := range test.Series {
		of, _, _ := strings.Cut(s.Series, "{")
		fed[plain(of)] = true
	}
	for _, r := range rules(t) {
		exprs[r.name()] = r.Expr
	}
	var visit func(name string)
	visit = func(name string) {
		for _, n := range namesIn(t, name, exprs[name]) {
			switch _, recorded := exprs[n.metric]; {
			case recorded:
				visit(n.metric)
			case !fed[plain(n.metric)] && !slices.Contains(missing, n.metric):
				missing = append(missing, n.metric)
			}
		}
	}
	for _, a := range test.Alerts {
		if len(a.Exp) > 0 {
			return nil
		}
		visit(a.Alert)
	}
	return missing
}

// untested returns the tests of an alert that are missing.
func untested(alert string, tests []ruleTest) (missing []string) {
	fires, resolves, silent := false, false, false
	for _, test := range tests {
		fired, quiet, over := false, false, false
		for _, a := range test.Alerts {
			if a.Alert == alert {
				fired, quiet = fired || len(a.Exp) > 0, quiet || len(a.Exp) == 0
				over = over || fired && len(a.Exp) == 0
			}
		}
		fires, resolves, silent = fires || fired, resolves || over, silent || quiet && !fired
	}
	for name, has := range map[string]bool{"fires": fires, "resolves": resolves, "does not fire": silent} {
		if !has {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing
}

// readHistograms returns the rules that read a histogram, themselves or by a rule above them.
func readHistograms(t *testing.T) map[string]bool {
	t.Helper()
	reads := map[string]bool{}
	for _, r := range rules(t) {
		for _, n := range namesIn(t, r.name(), r.Expr) {
			if reads[n.metric] || strings.HasSuffix(n.metric, "_bucket") {
				reads[r.name()] = true
			}
		}
		if strings.Contains(r.Expr, "histogram_") {
			reads[r.name()] = true
		}
	}
	return reads
}

const pages = "https://github.com/weir-go/weir/blob/main/ops/runbook/"

// Each alert says how urgent it is, and links to a page that exists.
func TestEachAlertHasAPage(t *testing.T) {
	linked := map[string]bool{"README.md": true}
	index, err := os.ReadFile("runbook/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts(t) {
		page, ok := strings.CutPrefix(a.Annotations["runbook_url"], pages)
		if _, err := os.Stat(filepath.Join("runbook", page)); !ok || err != nil {
			t.Errorf("%s: runbook_url: got %q, want a page of ops/runbook", a.Alert, a.Annotations["runbook_url"])
			continue
		}
		linked[page] = true
		text, err := os.ReadFile(filepath.Join("runbook", page))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), a.Alert) {
			t.Errorf("%s: got a page (%s) that does not name it, want its name under Symptom", a.Alert, page)
		}
		if !strings.Contains(string(index), "("+page+")") || !strings.Contains(string(index), a.Alert) {
			t.Errorf("%s: got no row in runbook/README.md, want one that links to %s", a.Alert, page)
		}
		if s := a.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity: got %q, want page or ticket", a.Alert, s)
		}
		if a.Annotations["summary"] == "" {
			t.Errorf("%s: got no summary, want one", a.Alert)
		}
	}
	found, err := filepath.Glob("runbook/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if !linked[filepath.Base(f)] {
			t.Errorf("%s: got a page that no alert links to", f)
		}
	}
}
