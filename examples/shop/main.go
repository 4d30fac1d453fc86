// Shop runs three gRPC servers in a row, named storefront, orders and payments. Customers buy
// and browse. After a while payments becomes ten times slower, and then recovers. It runs
// twice, first as such services are often written, with retries and timeouts at every hop,
// and then with weir. It prints a table, serves a page with live charts on localhost, and
// ends by itself.
//
//	go run ./examples/shop
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weir-go/weir/examples/internal/live"
	"github.com/weir-go/weir/examples/internal/program"
)

//go:embed page.html
var page []byte

type flags struct {
	duration time.Duration
	addr     string
	html     string
	seed     uint64
}

const (
	shortest = 4 * time.Second
	usual    = 30 * time.Second
)

func parse(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("shop", flag.ContinueOnError)
	set.DurationVar(&f.duration, "duration", usual, "how long the whole demonstration takes, at least 4s")
	set.StringVar(&f.addr, "addr", "127.0.0.1:8418", "where to serve the page; empty for nowhere")
	set.StringVar(&f.html, "html", "", "file to keep the page in")
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
		errs = append(errs, fmt.Errorf("shop: got argument %q, want flags only", args[0]))
	}
	if f.duration < shortest {
		errs = append(errs, fmt.Errorf("shop: -duration: got %v, want at least %v", f.duration, shortest))
	}
	if f.html != "" {
		if err := live.Writable(f.html); err != nil {
			errs = append(errs, fmt.Errorf("shop: -html: %w", err))
		}
	}
	return errors.Join(errs...)
}

func main() {
	program.Main(func(ctx context.Context) error {
		f, err := parse(os.Args[1:])
		if err != nil {
			return err
		}
		return demonstrate(ctx, os.Stdout, f, sockets)
	})
}

func demonstrate(ctx context.Context, w io.Writer, f flags, n network) error {
	feed := live.New(page)
	if f.addr != "" {
		url, stop, err := feed.Serve(f.addr)
		if err != nil {
			return fmt.Errorf("shop: -addr: %w", err)
		}
		defer stop()
		fmt.Fprintf(w, "live charts at %s while this runs\n", url)
		fmt.Fprintf(w, "the state of the gates at %s/debug/weir in the second half\n\n", url)
	}
	fmt.Fprintf(w, "storefront -> orders -> payments; %d customers a second buy, %d browse, and give up after %v\n\n",
		buys, browses, patience)
	printHead(w)
	var seen []report
	for _, run := range []string{bare, withWeir} {
		r, err := perform(ctx, feed, run, f.duration/2, f.seed, n)
		if ctx.Err() != nil {
			return errors.New("shop: interrupted")
		}
		if err != nil {
			return err
		}
		seen = append(seen, r)
		r.print(w)
		feed.Publish(part{Reports: []report{r}}, false)
	}
	feed.Publish(part{Done: true}, true)
	fmt.Fprintln(w, reading(seen[0], seen[1]))
	if f.html == "" {
		return nil
	}
	if err := feed.Save(f.html); err != nil {
		return fmt.Errorf("shop: -html: %w", err)
	}
	fmt.Fprintf(w, "\nthe page is kept in %s\n", f.html)
	return nil
}
