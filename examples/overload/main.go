// Overload shows what weir is for: a real gRPC server that can serve 1600 calls
// a second is asked for up to eight times that, first as it is, then with
// weir's defaults. It prints a table, serves a page with live charts on
// localhost, and ends by itself.
//
//	go run ./examples/overload
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/weir-go/weir/examples/internal/live"
)

// loads is what callers ask for, as multiples of what the server can do.
var loads = []float64{0.5, 1, 2, 4, 8}

type flags struct {
	duration time.Duration
	addr     string
	seed     uint64
	html     string
}

const shortest = 2 * time.Second

func parse(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("overload", flag.ContinueOnError)
	set.DurationVar(&f.duration, "duration", 50*time.Second, "how long the whole demonstration takes, at least 2s")
	set.StringVar(&f.addr, "addr", "127.0.0.1:8417", "where to serve the page; empty for nowhere")
	set.Uint64Var(&f.seed, "seed", 1, "seed of arrivals and service times")
	set.StringVar(&f.html, "html", "", "file to keep the page in")
	set.SetOutput(io.Discard) // main says what is wrong, once
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		set.SetOutput(os.Stdout)
		fmt.Println("Usage of overload:")
		set.PrintDefaults()
		return f, err
	case err != nil:
		return f, fmt.Errorf("overload: %w (-h lists what is wanted)", err)
	}
	return f, f.validate(set.Args())
}

// validate names everything that is wrong at once.
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
	f, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err == nil {
		err = demonstrate(ctx, f)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func demonstrate(ctx context.Context, f flags) error {
	show := newShow()
	if f.addr != "" {
		url, stop, err := show.Serve(f.addr)
		if err != nil {
			return fmt.Errorf("overload: -addr: %w", err)
		}
		defer stop()
		fmt.Printf("live charts at %s while this runs\n\n", url)
	}
	printHead()
	step := f.duration / time.Duration(2*len(loads))
	for _, run := range []string{bare, withWeir} {
		for _, load := range loads {
			row, err := measure(ctx, show, run, load, step, f.seed)
			if ctx.Err() != nil {
				return errors.New("overload: interrupted")
			}
			if err != nil {
				return err
			}
			show.addRow(row)
			printRow(row)
		}
		fmt.Println()
	}
	show.finish()
	fmt.Println(show.reading())
	if f.html == "" {
		return nil
	}
	if err := show.Save(f.html); err != nil {
		return fmt.Errorf("overload: -html: %w", err)
	}
	fmt.Printf("\nthe page is kept in %s\n", f.html)
	return nil
}
