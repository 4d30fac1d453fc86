// Measure runs the benchmarks and simulations behind docs/measurements.md and writes the
// tables of that file. It takes about fifteen minutes and wants a quiet machine:
//
//	go run ./examples/internal/measure -write docs/measurements.md
//
// Each round runs every benchmark once, so that the tables of one run saw the same
// machine. A cell is the median of the rounds, with the lowest and the highest in brackets.
// Without -write the tables go to standard output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/weir-go/weir/examples/internal/program"
)

func main() {
	program.Main(func(ctx context.Context) error { return run(ctx, os.Args[1:], os.Stdout, os.Stderr) })
}

// options are the flags.
type options struct {
	rounds  int
	seconds float64
	only    *regexp.Regexp
	write   string
	busy    bool
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("measure", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.IntVar(&o.rounds, "rounds", 5, "how many times to run each benchmark")
	flags.Float64Var(&o.seconds, "seconds", 1.5, "how long a benchmark measures, where it can choose")
	flags.StringVar(&only, "only", "", "a regular expression: run these tables alone")
	flags.StringVar(&o.write, "write", "", "the file whose tables are replaced; none: standard output")
	flags.BoolVar(&o.busy, "busy", false, "measure although other programs use the machine")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	o.only, err = regexp.Compile(only)
	switch {
	case err != nil:
		return o, fmt.Errorf("measure: -only: %w", err)
	case o.rounds < 1:
		return o, fmt.Errorf("measure: -rounds: got %d, want at least 1", o.rounds)
	case o.seconds < 0.1:
		return o, fmt.Errorf("measure: -seconds: got %g, want at least 0.1", o.seconds)
	case flags.NArg() > 0:
		return o, fmt.Errorf("measure: got arguments %q, want flags only", flags.Args())
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	var chosen []*table
	for _, t := range tables() {
		if o.only.MatchString(t.name) {
			chosen = append(chosen, t)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("measure: -only: got %q, want a part of a table's name", o.only)
	}
	var document string
	if o.write != "" { // before minutes are spent
		data, err := os.ReadFile(o.write)
		if err != nil {
			return fmt.Errorf("measure: %w", err)
		}
		document = string(data)
	}
	share, known := busy(ctx, time.Second)
	machine, err := describe(o, share, known)
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	if err := measure(ctx, o, chosen, progress); err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	if o.write == "" {
		_, err := io.WriteString(out, machine)
		for _, t := range chosen {
			_, failed := fmt.Fprintf(out, "\n## %s\n\n%s", t.name, t.markdown(o))
			err = errors.Join(err, failed)
		}
		return err
	}
	if document, err = fill(document, chosen, machine, o); err != nil {
		return fmt.Errorf("measure: %s: %w", o.write, err)
	}
	return os.WriteFile(o.write, []byte(document), 0o644)
}

// measure runs the commands of the tables and gives each table its samples.
func measure(ctx context.Context, o options, chosen []*table, progress io.Writer) error {
	dir, err := os.MkdirTemp("", "measure")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs := map[string]string{}
	for _, t := range chosen {
		if programs[t.pkg] == "" {
			if programs[t.pkg], err = build(ctx, dir, t.pkg); err != nil {
				return err
			}
		}
	}
	began := time.Now()
	for round := range o.rounds {
		for _, t := range chosen {
			if round > 0 && t.once {
				continue
			}
			output, err := t.sample(ctx, programs[t.pkg], o)
			if err != nil {
				return err
			}
			if t.collect(output) == 0 {
				return fmt.Errorf("table %s: got no figures from %s", t.name, t.command(o))
			}
			_, _ = fmt.Fprintf(progress, "%6.0f s  round %d of %d  %s\n", time.Since(began).Seconds(), round+1, o.rounds, t.name)
		}
	}
	return nil
}
