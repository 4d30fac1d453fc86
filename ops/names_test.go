package ops_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// expressions returns every expression of the alerts and of the dashboard, by the place where it stands.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, r := range rules(t) {
		all[r.name()] = r.Expr
	}
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile("dashboard/weir.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard.Dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "30s", "$job", ".*")
	queries := 0
	for _, p := range d.Panels {
		if p.Panel == nil {
			continue
		}
		for i, target := range p.Panel.Targets {
			where := fmt.Sprintf("panel %q, query %d", *p.Panel.Title, i+1)
			query, ok := target.(*prometheus.Dataquery)
			if !ok || query.Expr == "" {
				t.Fatalf("%s: got a %T, want a query of Prometheus", where, target)
			}
			all[where] = variables.Replace(query.Expr)
			queries++
		}
	}
	if queries == 0 {
		t.Error("weir.json: got no query, want some")
	}
	return all
}

// named lists the metrics that an expression names, with the labels and values that each must have.
type named struct {
	metric string
	labels map[string][]string // values by label, none if the label only has to exist
}

// want asks for a label, with any value.
func (n named) want(label string) {
	if _, known := n.labels[label]; !known {
		n.labels[label] = nil
	}
}

// literal matches a value of a regular expression that stands for itself.
var literal = regexp.MustCompile(`^[\w-]+$`)

func namesIn(t *testing.T, where, expr string) (all []named) {
	t.Helper()
	parsed, err := language.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: got %v, want PromQL", where, err)
		return nil
	}
	parser.Inspect(parsed, func(node parser.Node, path []parser.Node) error {
		v, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		n := named{v.Name, map[string][]string{}}
		for _, m := range v.LabelMatchers {
			if m.Name == labels.MetricName {
				continue
			}
			n.labels[m.Name] = nil
			for value := range strings.SplitSeq(m.Value, "|") {
				if literal.MatchString(value) {
					n.labels[m.Name] = append(n.labels[m.Name], value)
				}
			}
		}
		for _, above := range path {
			switch above := above.(type) {
			case *parser.AggregateExpr:
				for _, label := range above.Grouping {
					n.want(label)
				}
			case *parser.BinaryExpr:
				if above.VectorMatching != nil && above.VectorMatching.On {
					for _, label := range above.VectorMatching.MatchingLabels {
						n.want(label)
					}
				}
			}
		}
		all = append(all, n)
		return nil
	})
	return all
}

// Every expression runs, and each metric, label and value that it names exists in a Prometheus that scrapes the game
// day. One Prometheus stores classic histograms and one stores native ones.
func TestNamesExist(t *testing.T) {
	classic := stage(t, "none", false)
	native := scene{classic.metrics, scrape(t, tool(t, "prometheus"), classic.metrics, true)}
	all := expressions(t)
	for _, where := range slices.Sorted(maps.Keys(all)) {
		for _, s := range []scene{classic, native} {
			if err := s.get("/api/v1/query", url.Values{"query": {all[where]}}, new(any)); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
		for _, n := range namesIn(t, where, all[where]) {
			eventually(t, func() string {
				series := append(classic.find(t, n.metric), native.find(t, n.metric)...)
				return n.missing(where, series)
			})
		}
	}
}

// find returns the labels of the series of a metric.
func (s scene) find(t *testing.T, metric string) (series []map[string]string) {
	t.Helper()
	if err := s.get("/api/v1/series", url.Values{"match[]": {metric}}, &series); err != nil {
		t.Errorf("%s: %v", metric, err)
	}
	return series
}

// missing says what the series lack of the name.
func (n named) missing(where string, series []map[string]string) string {
	if len(series) == 0 {
		return fmt.Sprintf("%s: %s: got no series, want some", where, n.metric)
	}
	for label, values := range n.labels {
		has := func(value string) bool {
			return slices.ContainsFunc(series, func(s map[string]string) bool {
				v, ok := s[label]
				return ok && (value == "" || v == value)
			})
		}
		if !has("") {
			return fmt.Sprintf("%s: %s: got no label %s, want one", where, n.metric, label)
		}
		for _, value := range values {
			if !has(value) {
				return fmt.Sprintf("%s: %s: got no series with %s=%q, want one", where, n.metric, label, value)
			}
		}
	}
	return ""
}

// The check itself finds a metric, a label and a value that nobody exports.
func TestMissingNamesAreFound(t *testing.T) {
	series := []map[string]string{{"gate": "a", "class": "critical"}, {"gate": "b", "class": "default"}}
	for expr, want := range map[string]string{
		`m`:                                        "",
		`m{class="critical"}`:                      "",
		`m{class=~"critical|default"}`:             "",
		`m{class!~"critical|.+_pressure"}`:         "",
		`sum by (gate) (rate(m[1m]))`:              "",
		`m{class="urgent"}`:                        `class="urgent"`,
		`m{class=~"critical|urgent"}`:              `class="urgent"`,
		`m{tenant="a"}`:                            "no label tenant",
		`sum by (gate, tenant) (rate(m[1m]))`:      "no label tenant",
		`m unless on (gate, tenant) (m == 1)`:      "no label tenant",
		`sum by (gate) (m) / sum by (pod) (m)`:     "no label pod",
		`histogram_quantile(0.9, sum(m))`:          "",
		`m{gate="a", class!="critical"} offset 1h`: "",
	} {
		found := ""
		for _, n := range namesIn(t, expr, expr) {
			found += n.missing(expr, series)
		}
		if want == "" && found != "" || !strings.Contains(found, want) {
			t.Errorf("%s: got %q, want %q", expr, found, want)
		}
	}
	if got := (named{metric: "m"}).missing("x", nil); !strings.Contains(got, "no series") {
		t.Errorf("no series: got %q, want it said", got)
	}
}
