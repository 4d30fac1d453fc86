// Gameday starts a small system behind weir, breaks it in one of the ways that wake people at night, and lets you
// find the cause with the runbook in ops/runbook. Customers buy and browse at a storefront, which calls payments.
// One subscriber follows a feed, and a consumer handles messages. The program prints where its metrics are
// and where the page of package debug is, and ends by itself.
//
//	go run ./examples/gameday                  # one fault at random, named at the end
//	go run ./examples/gameday -fault memory
//	go run ./examples/gameday -fault circuit,stream
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/examples/internal/program"
)

type flags struct {
	faults   []string
	duration time.Duration
	after    time.Duration
	addr     string
	seed     uint64
}

// surprise is the flag's value for a fault at random.
const surprise = "random"

func parse(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("gameday", flag.ContinueOnError)
	f.faults = []string{surprise}
	set.Func("fault", "how to break the system: "+strings.Join(names(), ", ")+" or "+surprise+
		", or several of them with commas (default "+surprise+")", func(list string) error {
		f.faults = strings.Split(list, ",")
		return nil
	})
	set.DurationVar(&f.duration, "duration", 5*time.Minute, "when the program ends")
	set.DurationVar(&f.after, "after", 2*time.Second, "when the system breaks")
	set.StringVar(&f.addr, "addr", "127.0.0.1:9466", "where to serve /metrics and "+pagePath)
	set.Uint64Var(&f.seed, "seed", 1, "seed of arrivals and service times")
	if err := program.Parse(set, args); err != nil {
		return f, err
	}
	return f, f.validate(set.Args())
}

// validate returns all errors at once.
func (f flags) validate(args []string) error {
	var errs []error
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("gameday: got argument %q, want flags only", args[0]))
	}
	for _, name := range f.faults {
		if _, ok := faults[name]; !ok && name != surprise {
			errs = append(errs, fmt.Errorf("gameday: -fault: got %q, want %s or %s", name, strings.Join(names(), ", "), surprise))
		}
	}
	if f.after < 0 {
		errs = append(errs, fmt.Errorf("gameday: -after: got %v, want 0 or more", f.after))
	}
	if f.duration <= f.after {
		errs = append(errs, fmt.Errorf("gameday: -duration: got %v, want more than -after, which is %v", f.duration, f.after))
	}
	return errors.Join(errs...)
}

func main() {
	program.Main(func(ctx context.Context) error {
		f, err := parse(os.Args[1:])
		if err != nil {
			return err
		}
		return play(ctx, os.Stdout, f, sockets)
	})
}

// play runs the system until its time is over or ctx ends.
func play(ctx context.Context, w io.Writer, f flags, n network) (err error) {
	chosen := slices.Clone(f.faults)
	for i := range chosen {
		if chosen[i] == surprise {
			chosen[i] = names()[rand.IntN(len(names()))]
		}
	}
	s, err := open(f.seed, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if f.addr != "" {
		url, stop, err := s.serveAdmin(f.addr)
		if err != nil {
			return fmt.Errorf("gameday: -addr: %w", err)
		}
		defer stop()
		fmt.Fprintf(w, "metrics at %s/metrics\nthe page for people on call at %s%s\n", url, url, pagePath)
	}
	ctx, cancel := context.WithTimeout(ctx, f.duration)
	defer cancel()
	stop := s.load(ctx, f.duration, f.seed)
	defer func() { err = errors.Join(err, stop()) }()
	fmt.Fprintf(w, "all is well for %v; the runbook begins with ops/runbook/README.md\n", f.after)
	if !sleep(ctx, f.after) {
		return nil
	}
	fmt.Fprintln(w, "something broke")
	s.fail(ctx, chosen)
	for _, name := range chosen {
		fmt.Fprintf(w, "it was %q: %s\n", name, faults[name].tells)
	}
	return nil
}

// sleep waits for d, and reports false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
