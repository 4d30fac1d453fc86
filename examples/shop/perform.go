package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/live"
	"github.com/weir-go/weir/examples/internal/overload"
)

// These are the calls of customers a second, and their patience.
const (
	buys     = 40
	browses  = 280
	patience = time.Second
)

// phases are the phases of a run. Payments is well for a quarter of it, slow for a third,
// and well again.
var phases = []struct {
	name string
	ends float64 // as a fraction of the run
}{{"well", 1. / 4}, {"slow", 7. / 12}, {"well again", 1}}

// A report is the result of a run.
type report struct {
	Run    string        `json:"run"`
	Phases []phaseReport `json:"phases"`
	// Recovered is the time from the recovery of payments until customers were served, in
	// seconds. It is negative if they were not.
	Recovered float64 `json:"recovered"`
}

type phaseReport struct {
	Name     string  `json:"name"`
	Buys     float64 `json:"buys"`     // share of buying customers that were served in time
	Browses  float64 `json:"browses"`  // share of browsing customers
	Attempts float64 `json:"attempts"` // at payments, for each customer's call
	Held     [3]int  `json:"held"`     // most calls at once in storefront, orders, payments
}

// A sample is the state of a run at one moment.
type sample struct {
	Run      string  `json:"run"`
	Phase    string  `json:"phase"`
	At       float64 `json:"at"` // seconds since the run began
	Buys     float64 `json:"buys"`
	Browses  float64 `json:"browses"` // served a second
	Attempts float64 `json:"attempts"`
	Held     [3]int  `json:"held"`
}

// A part is an update of the page.
type part struct {
	Samples []sample `json:"samples,omitempty"`
	Reports []report `json:"reports,omitempty"`
	Done    bool     `json:"done,omitempty"`
}

const sampling = 250 * time.Millisecond

// A performance is a run in progress.
type performance struct {
	*shop
	feed         *live.Feed
	length       time.Duration
	buy, browse  overload.Load
	last         sample
	served       [2]int64
	attempts     int64
	phaseArrived []int64 // at payments, when each phase ended
	phaseHeld    [][3]int
}

// perform runs a shop for a while.
func perform(ctx context.Context, feed *live.Feed, run string, length time.Duration, seed uint64, n network) (report, error) {
	s, err := open(run, seed, n)
	if err != nil {
		return report{}, err
	}
	if len(s.sources) > 0 {
		state, err := debug.NewHandler(s.sources...)
		if err != nil {
			return report{}, errors.Join(err, s.close())
		}
		feed.ShowState(state)
		defer feed.ShowState(nil)
	}
	p := &performance{shop: s, feed: feed, length: length, phaseHeld: make([][3]int, len(phases))}
	p.buy = overload.Load{Rate: buys, Patience: patience, Seed: seed, Call: func(ctx context.Context) error {
		_, err := s.customers.Buy(ctx, &demopb.BuyRequest{})
		return err
	}}
	p.browse = overload.Load{Rate: browses, Patience: patience, Seed: seed + 1, Call: func(ctx context.Context) error {
		_, err := s.customers.Browse(ctx, &demopb.BrowseRequest{})
		return err
	}}
	var customers sync.WaitGroup
	begin := time.Now()
	customers.Go(func() { p.buy.Run(ctx, length) })
	customers.Go(func() { p.browse.Run(ctx, length) })
	for i := range phases {
		mean := wellWork
		if phases[i].name == "slow" {
			mean = slowWork
		}
		s.backend.SetMean(mean)
		p.watch(ctx, begin, i)
	}
	customers.Wait()
	return p.report(), s.close()
}

// end returns when a phase ends.
func (p *performance) end(phase int) time.Duration {
	if phase < 0 {
		return 0
	}
	return time.Duration(phases[phase].ends * float64(p.length))
}

// watch samples until a phase is over.
func (p *performance) watch(ctx context.Context, begin time.Time, phase int) {
	tick := time.NewTicker(sampling / 5)
	defer tick.Stop()
	over := time.After(time.Until(begin.Add(p.end(phase))))
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			p.phaseArrived = append(p.phaseArrived, p.payments.arrived.Load())
			return
		case <-tick.C:
			held := [3]int{int(p.storefront.held.Load()), int(p.orders.held.Load()), int(p.payments.held.Load())}
			for i, n := range held {
				p.phaseHeld[phase][i] = max(p.phaseHeld[phase][i], n)
			}
			if at := time.Since(begin).Seconds(); at-p.last.At >= sampling.Seconds() {
				p.sample(at, phases[phase].name, held)
			}
		}
	}
}

func (p *performance) sample(at float64, phase string, held [3]int) {
	served, attempts := [2]int64{p.buy.Served.Load(), p.browse.Served.Load()}, p.payments.arrived.Load()
	since := at - p.last.At
	p.last = sample{
		Run: p.run, Phase: phase, At: at,
		Buys:     float64(served[0]-p.served[0]) / since,
		Browses:  float64(served[1]-p.served[1]) / since,
		Attempts: float64(attempts-p.attempts) / since,
		Held:     held,
	}
	p.served, p.attempts = served, attempts
	p.feed.Publish(part{Samples: []sample{p.last}}, false)
}

func (p *performance) report() report {
	r := report{Run: p.run, Recovered: p.recovered()}
	arrived := int64(0)
	for i, phase := range phases {
		buy, browse := p.buy.Between(p.end(i-1), p.end(i)), p.browse.Between(p.end(i-1), p.end(i))
		calls := max(1, buy.Offered+browse.Offered)
		r.Phases = append(r.Phases, phaseReport{
			Name: phase.name, Buys: share(buy), Browses: share(browse),
			Attempts: float64(p.phaseArrived[i]-arrived) / float64(calls),
			Held:     p.phaseHeld[i],
		})
		arrived = p.phaseArrived[i]
	}
	return r
}

func share(r overload.Result) float64 { return float64(r.Good) / float64(max(1, r.Offered)) }

// enough is the share of customers that must be served when all is well.
const enough = 0.95

// recovered returns the time in the last phase after which enough customers of both kinds
// were served in every quarter of a second.
func (p *performance) recovered() float64 {
	well := p.end(len(phases) - 2)
	from := well
	for at := well; at+sampling <= p.length; at += sampling {
		if share(p.buy.Between(at, at+sampling)) < enough || share(p.browse.Between(at, at+sampling)) < enough {
			from = at + sampling
		}
	}
	if from+sampling > p.length {
		return -1
	}
	return (from - well).Seconds()
}

func printHead(w io.Writer) {
	fmt.Fprintf(w, "%-6s%-12s%14s%17s%20s   %s\n", "", "payments", "buys in time", "browses in time",
		"attempts at", "most calls held at once by")
	fmt.Fprintf(w, "%-6s%-12s%14s%17s%20s   %10s %6s %8s\n", "", "is", "", "", "payments, per call", "storefront", "orders", "payments")
}

func (r report) print(w io.Writer) {
	for _, p := range r.Phases {
		fmt.Fprintf(w, "%-6s%-12s%12.0f %%%15.0f %%%20.2f   %10d %6d %8d\n",
			r.Run, p.Name, 100*p.Buys, 100*p.Browses, p.Attempts, p.Held[0], p.Held[1], p.Held[2])
	}
	fmt.Fprintln(w)
}

// slow returns the phase in which payments was slow.
func (r report) slow() phaseReport { return r.Phases[1] }

// reading explains the table.
func reading(bare, weir report) string {
	text := fmt.Sprintf("While payments can do half of what is asked, the bare shop sells to %.0f %% of those who want to buy.\n"+
		"With weir it sells to %.0f %%: browsing is refused first, and nobody retries what somebody else has retried.\n"+
		"Each call of a customer becomes %.1f at payments in the bare shop, with weir %.2f.\n",
		100*bare.slow().Buys, 100*weir.slow().Buys, bare.slow().Attempts, weir.slow().Attempts)
	return text + fmt.Sprintf("Once payments is well again: the bare shop %s; with weir it %s. Nobody resets anything.",
		bare.recovery(), weir.recovery())
}

func (r report) recovery() string {
	if r.Recovered < 0 {
		return "has not recovered by the end"
	}
	if r.Recovered == 0 {
		return "serves all again at once"
	}
	return fmt.Sprintf("serves all again after %.2g s", r.Recovered)
}
