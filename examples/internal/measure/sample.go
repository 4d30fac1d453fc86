package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// build compiles the tests of a package, so that no round waits for the compiler.
func build(ctx context.Context, dir, pkg string) (program string, err error) {
	program = filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_")+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./"+pkg)
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return program, nil
}

// sample runs the table's tests or benchmarks once and returns their output.
func (t *table) sample(ctx context.Context, program string, o options) (string, error) {
	var args []string
	for _, a := range t.args() {
		args = append(args, "-test."+strings.TrimPrefix(a, "-"))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = t.pkg
	cmd.Env = append(os.Environ(), "WEIR_BENCH_SECONDS="+strconv.FormatFloat(t.length(o), 'g', -1, 64))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", t.command(o), err, output.String())
	}
	return output.String(), nil
}

// args returns the arguments of go test, without the package.
func (t *table) args() []string {
	if t.test != "" {
		return []string{"-v", "-run=" + t.test}
	}
	args := []string{"-run=^$", "-bench=" + t.bench, "-benchtime=" + t.benchtime}
	if t.cpu != "" {
		args = append(args, "-cpu="+t.cpu)
	}
	return args
}

// command returns the command line that measures the table's figures.
func (t *table) command(o options) string {
	words := []string{"go", "test"}
	if t.seconds > 0 || t.test == "" && t.benchtime == "1x" {
		words = append([]string{"WEIR_BENCH_SECONDS=" + strconv.FormatFloat(t.length(o), 'g', -1, 64)}, words...)
	}
	for _, a := range t.args() {
		flag, value, _ := strings.Cut(a, "=")
		if strings.ContainsAny(value, "^$|(") {
			a = flag + "='" + value + "'"
		}
		words = append(words, a)
	}
	if !t.once {
		words = append(words, "-count="+strconv.Itoa(o.rounds))
	}
	return strings.Join(append(words, "./"+t.pkg), " ")
}

// length is the value of WEIR_BENCH_SECONDS.
func (t *table) length(o options) float64 {
	if t.seconds > 0 {
		return t.seconds
	}
	return o.seconds
}

var (
	beginsAs  = regexp.MustCompile(`^=== RUN\s+Test([^/\s]*)/?(\S*)$`)
	attribute = regexp.MustCompile(`^=== ATTR\s+Test([^/\s]*)/?(\S*) (\S+) (.*)$`)
	benchmark = regexp.MustCompile(`^Benchmark([^/\s]*)/?(\S*)\s+\d+\t(.*)$`)
	processes = regexp.MustCompile(`-(\d+)$`)
)

// collect adds the figures in the output of a benchmark or of tests, and returns how many
// there are.
func (t *table) collect(output string) (n int) {
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if m := beginsAs.FindStringSubmatch(line); m != nil {
			t.begin(t.row(m[1], m[2])) // tests in parallel report in any order
			continue
		}
		if m := attribute.FindStringSubmatch(line); m != nil {
			t.add(t.row(m[1], m[2]), m[3], m[4])
			n++
			continue
		}
		m := benchmark.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := t.withoutProcesses(t.row(m[1], m[2]))
		fields := strings.Fields(m[3])
		for i := 0; i+1 < len(fields); i += 2 {
			t.add(name, fields[i+1], fields[i])
			n++
		}
	}
	return n
}

// row returns the name of a row: the part of a test or benchmark, with the whole's name
// where a table has several or where there are no parts.
func (t *table) row(whole, part string) string {
	switch {
	case part == "":
		return whole
	case t.many:
		return whole + "/" + part
	default:
		return part
	}
}

// withoutProcesses removes the number of processors from the end of a benchmark's name,
// or spells it out where a table compares them.
func (t *table) withoutProcesses(name string) string {
	if m := processes.FindStringSubmatch(name); m != nil && t.cpu != "" {
		return processes.ReplaceAllString(name, "") + ",_" + m[1] + "_processors"
	}
	if t.cpu != "" {
		return name + ",_1_processor"
	}
	return processes.ReplaceAllString(name, "")
}

// add adds a figure of a row.
func (t *table) add(name, unit, value string) {
	t.begin(name)
	t.rows[name][unit] = append(t.rows[name][unit], value)
}

// begin gives a row its place.
func (t *table) begin(name string) {
	if t.rows == nil {
		t.rows = map[string]map[string][]string{}
	}
	if t.rows[name] == nil {
		t.rows[name] = map[string][]string{}
		t.order = append(t.order, name)
	}
}
