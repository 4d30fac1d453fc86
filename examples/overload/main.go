// Overload demonstrates weir in three acts. Two gRPC servers, one with a handler that waits
// and one with a handler that computes, get up to eight times the calls that they can serve,
// without weir and with its defaults. In the third act they get half.
//
//	go run ./examples/overload
//
// It prints a table for each act and a verdict, serves a page with live charts on localhost,
// and ends within a minute. Every server is a process with one processor. Loads are multiples
// of some 200 calls a second, which are light work for the callers, so that a busy machine
// disturbs little. If it disturbs too much, there is no verdict, as tooBusy explains.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/live"
	"github.com/weir-go/weir/examples/internal/program"
)

type flags struct {
	duration time.Duration
	addr     string
	seed     uint64
	html     string
}

// A bare server would not fill up in less than shortest.
const shortest = 48 * time.Second

func parse(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("overload", flag.ContinueOnError)
	set.DurationVar(&f.duration, "duration", 50*time.Second, "how long the whole demonstration takes, at least 48s")
	set.StringVar(&f.addr, "addr", "127.0.0.1:8417", "where to serve the page; empty for nowhere")
	set.Uint64Var(&f.seed, "seed", 1, "seed of arrivals and waiting times")
	set.StringVar(&f.html, "html", "", "file to keep the page in")
	if err := program.Parse(set, args); err != nil {
		return f, err
	}
	return f, f.validate(set.Args())
}

// validate returns all errors at once.
func (f flags) validate(args []string) error {
	var errs []error
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("overload: got argument %q, want flags only", args[0]))
	}
	if f.duration < shortest {
		errs = append(errs, fmt.Errorf("overload: -duration: got %v, want at least %v", f.duration, shortest))
	}
	if f.html != "" {
		if err := live.Writable(f.html); err != nil {
			errs = append(errs, fmt.Errorf("overload: -html: %w", err))
		}
	}
	return errors.Join(errs...)
}

func main() {
	child.Main(serveChild)
	program.Main(func(ctx context.Context) error {
		f, err := parse(os.Args[1:])
		if err != nil {
			return err
		}
		return demonstrate(ctx, f, newPlay(newShow(), f), os.Stdout)
	})
}

// demonstrate performs a play, with the page beside it.
func demonstrate(ctx context.Context, f flags, p *play, out io.Writer) error {
	if f.addr != "" {
		url, stop, err := p.show.Serve(f.addr)
		if err != nil {
			return fmt.Errorf("overload: -addr: %w", err)
		}
		defer stop()
		fmt.Fprintf(out, "live charts at %s while this runs\n\n", url)
	}
	var verdict Verdict
	bounded, cancel := context.WithTimeoutCause(ctx, p.limit, errTooSlow)
	defer cancel()
	switch err := p.perform(bounded, out); {
	case ctx.Err() != nil:
		return errors.New("overload: interrupted")
	case context.Cause(bounded) != nil: // the cause of any other failure
		fmt.Fprintln(out)
		verdict.TooBusy = errTooSlow.Error()
	case err != nil:
		return err
	default:
		verdict = judge(p.show.all())
	}
	p.show.finish(verdict)
	writeVerdict(out, verdict)
	if f.html == "" {
		return nil
	}
	if err := p.show.Save(f.html); err != nil {
		return fmt.Errorf("overload: -html: %w", err)
	}
	fmt.Fprintf(out, "\nthe page is kept in %s\n", f.html)
	return nil
}
