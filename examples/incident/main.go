// Incident replays the incident that weir was made for. A consumer takes payments from a
// Kafka topic and passes them on to a gateway, which becomes ten times slower for a while.
//
//	go -C examples/incident run .
//
// The first consumer polls as fast as it can into a queue without a bound, and dies when its
// memory is used up. The second one is the same with weir. Both run at the same time, on the
// same topic. The program serves a page with live charts on localhost, prints the fate of
// both, and ends within a minute. Kafka is kfake, in a process of its own.
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
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/live"
	"github.com/weir-go/weir/examples/internal/program"
)

//go:embed page.html
var page []byte

// A part is a piece of news for the page.
type part struct {
	Run     string  `json:"run,omitempty"`
	Sample  *sample `json:"sample,omitempty"`
	Limit   int     `json:"limit,omitempty"` // MiB
	Verdict string  `json:"verdict,omitempty"`
}

func main() {
	child.Main(serve)
	addr := flag.String("addr", "127.0.0.1:8419", "where to serve the page; empty for nowhere")
	html := flag.String("html", "", "file to keep the page in")
	flag.Parse()
	program.Main(func(ctx context.Context) error { return demonstrate(ctx, *addr, *html, os.Stdout) })
}

// demonstrate runs both consumers at the same time, with the page beside them.
func demonstrate(ctx context.Context, addr, html string, out io.Writer) error {
	feed := live.New(page)
	if addr != "" {
		url, stop, err := feed.Serve(addr)
		if err != nil {
			return fmt.Errorf("incident: -addr: %w", err)
		}
		defer stop()
		fmt.Fprintf(out, "live charts at %s while this runs\n\n", url)
	}
	feed.Publish(part{Limit: memory >> 20}, false)
	bare, weir, err := replay(ctx, func(run string, s sample) { feed.Publish(part{Run: run, Sample: &s}, false) })
	if err != nil {
		return err
	}
	fmt.Fprint(out, table(bare, weir))
	verdict := judge(bare, weir)
	fmt.Fprintf(out, "\n%s\n", verdict)
	feed.Publish(part{Verdict: verdict}, true)
	if html == "" {
		return nil
	}
	return feed.Save(html)
}

// replay runs the incident.
func replay(ctx context.Context, see func(string, sample)) (bare, weir fate, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server, addr, err := start(ctx, job{Role: roleBroker})
	if err != nil {
		return bare, weir, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return bare, weir, err
	}
	defer client.Close()
	var produced atomic.Int64
	began := time.Now()
	var all sync.WaitGroup
	var errs [3]error
	run := func(i int, name string, f *fate) {
		s := &scene{name: name, broker: addr, began: began, kafka: client, produced: &produced, see: func(x sample) { see(name, x) }}
		all.Go(func() { *f, errs[i] = s.play(ctx) })
	}
	run(0, roleBare, &bare)
	run(1, roleWeir, &weir)
	all.Go(func() { errs[2] = produce(ctx, client, began, &produced) })
	all.Wait()
	return bare, weir, errors.Join(append(errs[:], ctx.Err())...)
}
