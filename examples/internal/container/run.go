package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/internal/child"
)

// A Result is the fate of a server.
type Result struct {
	Exit     int           // of the process if it died, else 0
	Died     time.Duration // since the first call; 0 if it did not
	OOMKills int           // by the kernel
	Peak     int64         // bytes
	// Before, During and After are the shares of usual calls that were served before the trouble,
	// in it, and from a second after its end. Critical is that of critical calls throughout.
	Before, During, After, Critical float64
	Calls, Refused                  int64 // of the usual ones
	// Late is the share of calls that began late, because the machine was busy.
	Late float64
	// Others is the share of the processors that other processes took, 0 if it is not known.
	Others float64
	Levels map[string]bool
	// Reasons counts the refused usual calls.
	Reasons map[string]int
}

// A Sample is the state of a server at one moment.
type Sample struct {
	At      float64 `json:"at"`     // seconds
	Memory  float64 `json:"memory"` // MiB
	Goodput float64 `json:"goodput"`
	Dead    bool    `json:"dead"`
	Report
}

// settled is how long after the trouble the server has to be well again.
const settled = time.Second

// A run is a plan under way.
type run struct {
	Plan

	process *child.Process
	group   *group
	conns   []*grpc.ClientConn
	apart   *grpc.ClientConn // of critical callers: large requests are not in their way
	began   time.Time
	stop    context.CancelFunc // of the callers
	see     func(Sample)

	served, critical         tally
	refused, good, late      atomic.Int64
	mu                       sync.Mutex // guards the fields below
	peak                     int64
	died                     time.Duration
	over                     bool // the process may end
	levels                   map[string]bool
	reasons                  map[string]int
	report                   Report
	callers, watchers, lines sync.WaitGroup
}

// Run runs a plan. see is called with samples, one at a time.
func Run(ctx context.Context, p Plan, see func(Sample)) (result Result, err error) {
	// The callers allocate much and keep little. With the usual heap of a few MiB they would
	// collect garbage all the time and not call.
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	r := &run{Plan: p, see: see, levels: map[string]bool{}, reasons: map[string]int{}}
	if p.Kernel {
		if r.group, err = newGroup(p.Memory); err != nil {
			return Result{}, err
		}
		r.Cgroup = r.group.dir
		defer func() { err = errors.Join(err, r.group.remove()) }()
	}
	if r.process, err = child.Start(ctx, r.Config, 0); err != nil {
		return Result{}, err
	}
	if !r.process.Lines.Scan() {
		return Result{}, errors.Join(errors.New("container: the server printed no address"), r.process.Stop())
	}
	if err := r.connect(r.process.Lines.Text()); err != nil {
		return Result{}, errors.Join(err, r.process.Stop())
	}
	before := times()
	r.perform(ctx)
	result = r.result()
	for _, c := range r.conns { // the one apart, too
		err = errors.Join(err, c.Close())
	}
	err = errors.Join(err, r.process.Kill())
	r.lines.Wait()
	err = errors.Join(err, r.process.Wait())
	if result.Died > 0 {
		result.Exit = r.process.ExitCode()
	}
	result.Others = times().others(before)
	return result, err
}

func (r *run) connect(addr string) error {
	for range 11 {
		c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		r.conns = append(r.conns, c)
	}
	r.apart = r.conns[10]
	for _, c := range r.conns { // usual calls have no time to wait for that
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := c.Invoke(ctx, vital, &blob{}, new(blob), grpc.WaitForReady(true))
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// perform has the callers call until the end, or until the server is dead.
func (r *run) perform(ctx context.Context) {
	calls, stop := context.WithTimeout(ctx, r.End)
	r.stop = stop
	defer stop()
	r.lines.Go(func() { // ends with the process
		for r.process.Lines.Scan() {
			var now Report
			if json.Unmarshal(r.process.Lines.Bytes(), &now) == nil {
				r.mu.Lock()
				r.report, r.levels[now.Level] = now, true
				r.mu.Unlock()
			}
		}
		r.dead() // killed from outside
	})
	r.began = time.Now()
	r.watchers.Go(func() { r.watch(calls) })
	r.callers.Go(func() { r.usualCalls(calls) })
	r.callers.Go(func() { r.criticalCalls(calls) })
	r.callers.Go(func() { r.backgroundCalls(calls) })
	r.callers.Go(func() { r.makeTrouble(calls) })
	<-calls.Done()
	r.watchers.Wait()
	r.callers.Wait()
}

// dead notes that the process has died while it should not.
func (r *run) dead() {
	at := time.Since(r.began)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.died == 0 && !r.over {
		r.died = at
	}
	r.stop()
}

// used returns the memory that the limit counts.
func (r *run) used() (int64, error) {
	if r.Kernel {
		return resident(r.process.PID)
	}
	return dataSegment(r.process.PID)
}

// watch looks at the memory of the process.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last time.Duration
	var good int64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if s := r.sample(0, 0, 0); s.Dead {
				r.see(s)
			}
			return
		}
		used, err := r.used()
		if err != nil {
			used = 0
		}
		r.mu.Lock()
		r.peak = max(r.peak, used)
		r.mu.Unlock()
		if at := time.Since(r.began); at-last >= sampling {
			now := r.good.Load()
			r.see(r.sample(used, now-good, at-last))
			last, good = at, now
		}
	}
}

func (r *run) sample(used, good int64, took time.Duration) Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Sample{At: time.Since(r.began).Seconds(), Memory: float64(used) / (1 << 20), Report: r.report, Dead: r.died > 0}
	if took > 0 {
		s.Goodput = float64(good) / took.Seconds()
	}
	return s
}

func (r *run) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	res := Result{
		Died: r.died, Peak: r.peak, Levels: r.levels, Reasons: r.reasons,
		Before: r.served.share(r.From/4, r.From-r.Deadline), After: r.served.share(r.To+settled, r.End-time.Second),
		During:   r.served.share(r.From+settled, r.To),
		Critical: r.critical.share(0, r.End-time.Second), Calls: r.served.n.Load(), Refused: r.refused.Load(),
		Late: float64(r.late.Load()) / float64(max(r.served.n.Load(), 1)),
	}
	if r.group != nil {
		res.Peak, res.OOMKills = r.group.peakBytes(), r.group.oom()
	}
	return res
}

// Busy reports whether the machine was too busy to show anything about goodput.
func (r Result) Busy() bool { return r.Late > 0.01 || r.Before < 0.99 }

// String says it in a line.
func (r Result) String() string {
	fate := "lives"
	if r.Died > 0 {
		fate = fmt.Sprintf("dies after %.1f s, exit %d", r.Died.Seconds(), r.Exit)
	}
	return fmt.Sprintf("%s; oom_kill %d, peak %d MiB; "+
		"served before %.1f %%, during %.1f %%, after %.1f %%, critical %.1f %%; %d of %d calls refused %v",
		fate, r.OOMKills, r.Peak>>20, 100*r.Before, 100*r.During, 100*r.After, 100*r.Critical, r.Refused, r.Calls, r.Reasons)
}

// A tally counts calls by when they began.
type tally struct {
	mu    sync.Mutex // guards the fields below
	calls []call
	n     atomic.Int64
}

type call struct {
	at time.Duration
	ok bool
}

func (t *tally) add(at time.Duration, ok bool) {
	t.n.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, call{at, ok})
}

// share returns which share of the calls that began in a time was served.
func (t *tally) share(from, to time.Duration) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, ok := 0, 0
	for _, c := range t.calls {
		if c.at >= from && c.at < to {
			all++
			if c.ok {
				ok++
			}
		}
	}
	return float64(ok) / float64(max(all, 1))
}

// CanLimit returns why the kernel cannot limit memory for us; nil if it can.
func CanLimit() error {
	g, err := newGroup(64 << 20)
	if err != nil {
		return err
	}
	return g.remove()
}
