package otel

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A name is how one metric of package metrics appears in OpenTelemetry.
type name struct {
	metric      string // the name in Prometheus
	instrument  string
	unit        string
	description string
	counter     bool
}

// describes matches prometheus.Desc.String. The type has no accessors.
var describes = regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: (".*?"), (?:unit: ".*?", )?constLabels: \{(\w+)=`)

// nameOf translates the descriptor of a metric.
func nameOf(d *prometheus.Desc) (name, error) {
	m := describes.FindStringSubmatch(d.String())
	if m == nil {
		return name{}, fmt.Errorf("otel: got the descriptor %v, want one with a name, a help text and a source", d)
	}
	n := name{metric: m[1], description: strings.Trim(m[2], `"`), unit: "1"}
	rest := strings.TrimPrefix(n.metric, "weir_")
	part, after, found := strings.Cut(rest, "_")
	if m[3] == "gate" || !found { // the names of gates have no word for it
		part, after = "gate", rest
	}
	after, n.counter = strings.CutSuffix(after, "_total")
	if sum, ok := strings.CutSuffix(after, "_seconds"); ok && n.counter {
		after = sum + "_time_seconds" // a state may have the name without it, such as paused
	}
	for suffix, unit := range map[string]string{"_seconds": "s", "_bytes": "By", "_ratio": "1"} {
		if short, ok := strings.CutSuffix(after, suffix); ok {
			after, n.unit = short, unit
		}
	}
	n.instrument = "weir." + part + "." + after
	return n, nil
}
