// Incident replays the incident that weir was made for. A consumer takes payments from a
// broker and passes them on to a gateway, which becomes ten times slower for a while.
//
//	go -C examples/incident run . -broker kafka
//
// The first consumer fetches as fast as it can, without a bound, and dies when its memory is
// used up. The second one is the same with weir. Both run at the same time and get the same
// payments. The program serves a page with live charts on localhost, prints the fate of
// both, and ends within a minute.
//
// Kafka is kfake and NATS is nats-server, both compiled into this program. RabbitMQ, Redis
// and the server of SQS must be installed. The program says how, and starts them on free
// ports of localhost.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/live"
	"github.com/weir-go/weir/examples/internal/program"
)

//go:embed page.html
var page []byte

// A part is a piece of news for the page.
type part struct {
	Broker  string  `json:"broker,omitempty"`
	Run     string  `json:"run,omitempty"`
	Sample  *sample `json:"sample,omitempty"`
	Limit   int     `json:"limit,omitempty"` // MiB
	Verdict string  `json:"verdict,omitempty"`
}

type flags struct {
	broker string
	addr   string
	html   string
}

func parse(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("incident", flag.ContinueOnError)
	set.StringVar(&f.broker, "broker", "kafka", "the broker: "+names())
	set.StringVar(&f.addr, "addr", "127.0.0.1:8419", "where to serve the page; empty for nowhere")
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
		errs = append(errs, fmt.Errorf("incident: got argument %q, want flags only", args[0]))
	}
	if k, ok := kinds[f.broker]; !ok {
		errs = append(errs, fmt.Errorf("incident: -broker: got %q, want one of %s", f.broker, names()))
	} else if err := k.missing(); err != nil {
		errs = append(errs, fmt.Errorf("incident: -broker %s: %w", f.broker, err))
	}
	if f.html != "" {
		if err := live.Writable(f.html); err != nil {
			errs = append(errs, fmt.Errorf("incident: -html: %w", err))
		}
	}
	return errors.Join(errs...)
}

func main() {
	child.Main(serve)
	program.Main(func(ctx context.Context) error {
		f, err := parse(os.Args[1:])
		if err != nil {
			return err
		}
		_, err = demonstrate(ctx, f, usualPlan, os.Stdout)
		return err
	})
}

// demonstrate runs both consumers at the same time, with the page beside them.
func demonstrate(ctx context.Context, f flags, p plan, out io.Writer) (o outcome, err error) {
	k, feed := kinds[f.broker], live.New(page)
	fmt.Fprintf(out, "%s is starting\n", k.title)
	if f.addr != "" {
		url, stop, err := feed.Serve(f.addr)
		if err != nil {
			return o, fmt.Errorf("incident: -addr: %w", err)
		}
		defer stop()
		fmt.Fprintf(out, "live charts at %s while this runs\n", url)
	}
	feed.Publish(part{Broker: k.title, Limit: int(k.memory / mib)}, false)
	o, err = replay(ctx, f.broker, p, func(run string, s sample) { feed.Publish(part{Run: run, Sample: &s}, false) })
	if err != nil {
		return o, err
	}
	verdict := o.judge()
	fmt.Fprintf(out, "\n%s\n%s\n", o.table(), verdict)
	feed.Publish(part{Verdict: verdict}, true)
	if f.html == "" {
		return o, nil
	}
	return o, feed.Save(f.html)
}
