package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// markdown returns the command and the table.
func (t *table) markdown(o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "    %s\n\n| |", t.command(o))
	for _, c := range t.columns {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	fmt.Fprintf(&b, "\n|---|%s\n", strings.Repeat("---|", len(t.columns)))
	for _, name := range t.order {
		cells, some := t.cells(name)
		if some {
			fmt.Fprintf(&b, "| %s | %s |\n", t.label(name), strings.Join(cells, " | "))
		}
	}
	return b.String()
}

// cells returns the cells of a row, and whether any of them has a figure.
func (t *table) cells(name string) (cells []string, some bool) {
	for _, c := range t.columns {
		cell := c.cell(t.rows[name][c.unit])
		cells = append(cells, cell)
		some = some || cell != ""
	}
	return cells, some
}

var (
	key   = regexp.MustCompile(`(^|/)(\w+)=`)
	one   = regexp.MustCompile(`([A-Z])([A-Z][a-z])`) // a word of one letter
	hump  = regexp.MustCompile(`([a-z])([A-Z])`)
	under = strings.NewReplacer("_", " ", "|", `\|`)
)

// label makes a name readable. go test has put underscores in the place of blanks.
func (t *table) label(name string) string {
	title, rest, parts := strings.Cut(name, "/")
	if t.many {
		title = strings.ToLower(hump.ReplaceAllString(one.ReplaceAllString(title, "$1 $2"), "$1 $2"))
		name = title
		if parts {
			name += ": " + rest
		}
	}
	if key.MatchString(name) {
		name = strings.ReplaceAll(key.ReplaceAllString(name, "$1$2 "), "/", ", ")
	}
	return under.Replace(name)
}

// cell returns the median of values, with the lowest and the highest if they differ. A
// value that is no number stands as it is.
func (c column) cell(values []string) string {
	if len(values) == 0 {
		return ""
	}
	numbers := make([]float64, 0, len(values))
	for _, v := range values {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return values[0]
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	show := func(n float64) string { return strconv.FormatFloat(n, 'f', c.digits, 64) }
	low, mid, high := show(numbers[0]), show(median(numbers)), show(numbers[len(numbers)-1])
	if low == high {
		return mid
	}
	return fmt.Sprintf("%s (%s to %s)", mid, low, high)
}

// median returns the middle of sorted numbers, the mean of the two middle ones if their
// number is even.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// A table stands between two lines in the document, which this program finds again.
const (
	beginning = "<!-- measured: %s -->\n"
	ending    = "<!-- end -->"
	// machineName is the name of the lines about the machine.
	machineName = "machine"
)

// fill replaces the tables of a document.
func fill(document string, chosen []*table, machine string, o options) (string, error) {
	document, err := replace(document, machineName, machine)
	for _, t := range chosen {
		if err == nil {
			document, err = replace(document, t.name, t.markdown(o))
		}
	}
	return document, err
}

// replace replaces the text between the markers of a name.
func replace(document, name, with string) (string, error) {
	begin := fmt.Sprintf(beginning, name)
	before, rest, found := strings.Cut(document, begin)
	if !found {
		return "", fmt.Errorf("got no line %q, want one", strings.TrimSpace(begin))
	}
	_, after, found := strings.Cut(rest, ending)
	if !found {
		return "", fmt.Errorf("got no line %q after %q, want one", ending, strings.TrimSpace(begin))
	}
	return before + begin + with + ending + after, nil
}
