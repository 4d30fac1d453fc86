package docs_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

// sources returns one source of each kind, by the title of its part of the document.
func sources(t *testing.T) map[string]metrics.Source {
	t.Helper()
	gate, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	circuits, err := breaker.New(breaker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	credit, err := throttle.New(throttle.Config{})
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := pressure.New()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]metrics.Source{
		"gates": gate, "streams": streamcredit.NewMeter("default"), "breakers": circuits, "throttles": credit,
		"retries": retry.NewMeter("default"), "pressure": monitor, "brokers": broker.NewMeter("default"),
	}
}

// desc matches what prometheus.Desc.String prints.
var desc = regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: "(.*?)", (?:unit: ".*?", )?constLabels: \{(.*?)\}, variableLabels: \{(.*?)\}\}$`)

// A metric is a row of the document.
type metric struct{ name, kind, labels, help string }

// metricsOf returns the metrics that a collector shows of a source.
func metricsOf(t *testing.T, s metrics.Source) (rows []metric) {
	t.Helper()
	c, err := metrics.NewCollector(s)
	if err != nil {
		t.Fatal(err)
	}
	kinds := gathered(t, c)
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); c.Describe(descs) }()
	for d := range descs {
		m := desc.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("descriptor: got %v, want one of name, help and labels", d)
		}
		kind := kinds[m[1]]
		switch {
		case kind != "":
		case strings.HasSuffix(m[1], "_total"): // it has no series yet
			kind = "counter"
		default:
			kind = "gauge"
		}
		rows = append(rows, metric{m[1], kind, strings.ReplaceAll(m[4], ",", ", "), m[2]})
	}
	slices.SortFunc(rows, func(a, b metric) int { return cmp.Compare(a.name, b.name) })
	return slices.Compact(rows)
}

// gathered returns the types of the metrics that have a series.
func gathered(t *testing.T, c prometheus.Collector) map[string]string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	return kinds
}

// The tables of docs/metrics.md are those of the code.
func TestMetrics(t *testing.T) {
	path := filepath.Join(root, "docs", "metrics.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := text
	for title, s := range sources(t) {
		begin, end := []byte("<!-- metrics: "+title+" -->\n"), []byte("<!-- end -->\n")
		_, after, found := bytes.Cut(want, begin)
		_, rest, closed := bytes.Cut(after, end)
		if !found || !closed {
			t.Fatalf("docs/metrics.md: got no place for the metrics of %s, want one between %q and %q", title, begin, end)
		}
		before := want[:len(want)-len(after)]
		var table bytes.Buffer
		table.WriteString("\n| name | type | labels | what it is |\n|---|---|---|---|\n")
		for _, m := range metricsOf(t, s) {
			fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, m.help)
		}
		table.WriteString("\n")
		want = slices.Concat(before, table.Bytes(), end, rest)
	}
	if bytes.Equal(text, want) {
		return
	}
	if !*update {
		t.Fatal("docs/metrics.md: got other tables than those of the code (go test ./internal/docs -update)")
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The doc comment of package metrics has each metric.
func TestMetricsInTheDocComment(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "metrics", "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, name := range regexp.MustCompile(`(?m)^//\t(weir_\w+)`).FindAllStringSubmatch(string(text), -1) {
		shown[name[1]] = true
	}
	for title, s := range sources(t) {
		for _, m := range metricsOf(t, s) {
			if !shown[m.name] {
				t.Errorf("metrics/doc.go: got no row for %s of %s, want one", m.name, title)
			}
			delete(shown, m.name)
		}
	}
	for name := range shown {
		t.Errorf("metrics/doc.go: got a row for %s, want only metrics that a collector shows", name)
	}
}
