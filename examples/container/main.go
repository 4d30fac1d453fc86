// Container shows a server that runs out of memory, and the same server with weir. Each has
// 256 MiB and gets 100 calls of 200 KB a second, with deadlines of 100 ms. A dependency stops for
// a while, the handlers wait for it and ignore their contexts, and the callers retry at once.
//
//	go run ./examples/container
//
// The program serves a page with live charts on localhost, prints the fate of both servers,
// and ends within half a minute. It needs no root. Each server limits its data segment, as with
// prlimit --data, and a Go program that gets no more memory ends with exit status 2.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/container"
	"github.com/weir-go/weir/examples/internal/live"
	"github.com/weir-go/weir/examples/internal/program"
)

//go:embed page.html
var page []byte

type flags struct {
	addr, html string
	seed       uint64
}

func parse(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("container", flag.ContinueOnError)
	set.StringVar(&f.addr, "addr", "127.0.0.1:8418", "where to serve the page; empty for nowhere")
	set.StringVar(&f.html, "html", "", "file to keep the page in")
	set.Uint64Var(&f.seed, "seed", 1, "seed of arrivals")
	if err := program.Parse(set, args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("container: got argument %q, want flags only", set.Arg(0))
	}
	if f.html == "" {
		return f, nil
	}
	if err := live.Writable(f.html); err != nil {
		return f, fmt.Errorf("container: -html: %w", err)
	}
	return f, nil
}

func main() {
	child.Main(container.Serve)
	program.Main(func(ctx context.Context) error {
		f, err := parse(os.Args[1:])
		if err != nil {
			return err
		}
		return demonstrate(ctx, f, os.Stdout)
	})
}

const memory = 256 << 20

// plan returns the plan for a server. The dependency is gone for ten seconds. Two servers and
// their callers share the machine, so each gets a third of the usual calls.
func plan(weir bool, seed uint64) container.Plan {
	p := container.PlanFor(container.Dependency, weir, memory, 10*time.Second, seed)
	p.Rate /= 3
	return p
}

// A part is a piece of news for the page.
type part struct {
	Run     string            `json:"run,omitempty"`
	Sample  *container.Sample `json:"sample,omitempty"`
	Limit   int               `json:"limit,omitempty"` // MiB
	Verdict string            `json:"verdict,omitempty"`
}

// demonstrate runs both servers at the same time, with the page beside them.
func demonstrate(ctx context.Context, f flags, out io.Writer) error {
	feed := live.New(page)
	if f.addr != "" {
		url, stop, err := feed.Serve(f.addr)
		if err != nil {
			return fmt.Errorf("container: -addr: %w", err)
		}
		defer stop()
		fmt.Fprintf(out, "live charts at %s while this runs\n\n", url)
	}
	feed.Publish(part{Limit: memory >> 20}, false)
	var results [2]container.Result
	var errs [2]error
	var both sync.WaitGroup
	for i, name := range []string{"bare", "weir"} {
		both.Go(func() {
			results[i], errs[i] = container.Run(ctx, plan(i == 1, f.seed), func(s container.Sample) {
				feed.Publish(part{Run: name, Sample: &s}, false)
			})
		})
	}
	both.Wait()
	if err := errors.Join(append(errs[:], ctx.Err())...); err != nil {
		return err
	}
	fmt.Fprintf(out, "bare: %v\nweir: %v\n\n", results[0], results[1])
	verdict := judge(results[0], results[1])
	fmt.Fprintln(out, verdict)
	feed.Publish(part{Verdict: verdict}, true)
	if f.html == "" {
		return nil
	}
	return feed.Save(f.html)
}

// judge returns the verdict in a sentence or two.
func judge(bare, weir container.Result) string {
	const mib = 1 << 20
	switch {
	case bare.Peak == 0:
		return "No verdict: this system does not say how much memory a process has."
	case bare.Died == 0 || weir.Late > 0.05 || weir.Before < 0.95:
		return fmt.Sprintf("No verdict: this machine was too busy (%.0f %% of the calls began late).", 100*weir.Late)
	case weir.Died > 0:
		return fmt.Sprintf("Not as promised: with weir the server died after %.1f s.", weir.Died.Seconds())
	case weir.After < 0.95*weir.Before || weir.Critical < 0.99:
		return fmt.Sprintf("Not as promised: with weir %.1f %% were served after the trouble, and %.1f %% "+
			"of the critical calls throughout.",
			100*weir.After, 100*weir.Critical)
	}
	return fmt.Sprintf("As promised: the bare server dies %.1f s after the dependency has stopped. With weir it never takes "+
		"more than %d of %d MiB, serves %.1f %% of the critical calls throughout, and all others a second after the dependency is back.",
		(bare.Died - plan(false, 0).From).Seconds(), weir.Peak/mib, memory/mib, 100*weir.Critical)
}
