package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/internal/child"
)

// A sample is the state of a consumer at one moment.
type sample struct {
	At     float64 `json:"at"`     // seconds
	Memory float64 `json:"memory"` // MiB
	Paid   float64 `json:"paid"`   // a second
	Lag    int     `json:"lag"`    // payments that are not acknowledged
	Dead   bool    `json:"dead"`
	report
}

// A fate is the end of a consumer.
type fate struct {
	Died      time.Duration // since the beginning; 0 if it did not
	Peak      int64         // bytes
	MaxLag    int
	MaxHeld   int // delivered and not acknowledged; -1 if the broker does not know
	Paid      ledger
	Settled   int // acknowledged at the broker
	Produced  int
	Before    float64       // paid a second before the trouble
	Recovered time.Duration // from the end of the trouble until the lag was gone; 0 if it never was
	WorkOff   float64       // paid a second, meanwhile
	Gap       time.Duration // the longest between two samples, meanwhile
	// Starved is the time for which threads of the consumer waited for a processor, of the
	// time since the end of the trouble. Several threads add up. 0 if the system does not tell.
	Starved float64
}

// A scene is one consumer with its gateway.
type scene struct {
	plan
	load
	job
	began    time.Time
	server   server // of the broker
	produced *atomic.Int64
	see      func(sample)

	consumer, gateway *child.Process
	conn              *grpc.ClientConn
	fate              fate
	now               atomic.Pointer[report]
	notedAt, gap      time.Duration // the last sample, and the longest gap since the trouble
	waited            time.Duration // for a processor, until the end of the trouble
	startedAt         time.Duration // half of the time before the trouble
	started, workFrom int           // payments made until then, and until the end of the trouble
}

// play runs a consumer to its end.
func (s *scene) play(ctx context.Context) (_ fate, err error) {
	ctx, cancel := context.WithDeadline(ctx, s.began.Add(s.end))
	defer cancel()
	if s.gateway, s.Gateway, err = start(ctx, job{Role: roleGateway}, ctx.Done()); err != nil {
		return s.fate, err
	}
	defer func() { err = errors.Join(err, s.gateway.Stop()) }()
	if s.conn, err = grpc.NewClient(s.Gateway, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return s.fate, err
	}
	defer s.conn.Close()
	if s.consumer, err = child.Start(ctx, s.job, 0); err != nil {
		return s.fate, err
	}
	s.now.Store(new(report))
	gone := make(chan struct{})
	var lines sync.WaitGroup
	lines.Go(func() {
		defer close(gone)
		s.read()
	})
	err = s.watch(ctx, gone)
	err = errors.Join(err, s.consumer.Kill())
	lines.Wait()
	return s.fate, errors.Join(err, s.consumer.Wait())
}

// read takes the reports of the consumer until it is gone.
func (s *scene) read() {
	for s.consumer.Lines.Scan() {
		var r report
		if json.Unmarshal(s.consumer.Lines.Bytes(), &r) == nil {
			s.now.Store(&r)
		}
	}
}

// watch slows the gateway down and up again, samples, and kills a consumer that takes more
// memory than it may, in the place of the kernel. It ends when all payments are made.
func (s *scene) watch(ctx context.Context, gone <-chan struct{}) error {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	each, last, lastAt := usual, 0, 0*time.Second
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-gone:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("incident: the consumer %s ended by itself", s.Role)
		case <-tick.C:
		}
		if want := s.speed(time.Since(s.began)); want != each && s.call(ctx, "Slow", []byte(want.String()), nil) == nil {
			each = want
		}
		used := resident(s.consumer.PID)
		lag := s.count(ctx)
		at := time.Since(s.began) // of the count, which may take long
		s.note(at, used, lag)
		s.starved(at)
		s.see(sample{
			At: at.Seconds(), Memory: float64(used) / mib, Lag: lag, Dead: used > s.memory,
			Paid: float64(s.fate.Paid.Distinct-last) / (at - lastAt).Seconds(), report: *s.now.Load(),
		})
		last, lastAt = s.fate.Paid.Distinct, at
		if used > s.memory {
			return s.bury(ctx, at)
		}
		if at > s.produceTo && s.fate.Paid.Distinct == s.fate.Produced && s.fate.Settled == s.fate.Produced {
			return nil
		}
	}
}

// count asks the broker and the gateway, and returns the lag. It asks the broker first. A
// payment that is acknowledged there and not made was then acknowledged too early.
func (s *scene) count(ctx context.Context) (lag int) {
	s.fate.Produced = int(s.produced.Load())
	if b, err := s.server.backlog(ctx, s.Role); err == nil { // or the last one counts
		s.fate.Settled = max(s.fate.Settled, s.fate.Produced-b.Left)
		s.fate.MaxHeld = max(s.fate.MaxHeld, b.Held)
		if b.Held < 0 {
			s.fate.MaxHeld = b.Held
		}
	}
	_ = s.call(ctx, "Ledger", nil, &s.fate.Paid) // or the last one counts
	return s.fate.Produced - s.fate.Settled
}

// note keeps the extremes.
func (s *scene) note(at time.Duration, used int64, lag int) {
	f := &s.fate
	f.Peak, f.MaxLag = max(f.Peak, used), max(f.MaxLag, lag)
	switch {
	case at < s.troubleFrom/2: // the consumer may be starting
		s.startedAt, s.started = at, f.Paid.Distinct
	case at < s.troubleFrom:
		f.Before = float64(f.Paid.Distinct-s.started) / (at - s.startedAt).Seconds()
	}
	if at < s.troubleTo {
		s.workFrom = f.Paid.Distinct
	}
	if at > s.troubleTo {
		s.gap = max(s.gap, at-s.notedAt)
	}
	s.notedAt = at
	if f.Recovered == 0 {
		f.Gap = s.gap
	}
	if at > s.troubleTo && f.Recovered == 0 && f.Produced-f.Paid.Distinct < rate/3 {
		f.Recovered = at - s.troubleTo
		f.WorkOff = float64(f.Paid.Distinct-s.workFrom) / f.Recovered.Seconds()
	}
}

// starved notes how long the consumer waits for a processor.
func (s *scene) starved(at time.Duration) {
	waited := waiting(s.consumer.PID)
	if at <= s.troubleTo {
		s.waited = waited
		return
	}
	if s.fate.Recovered == 0 || at == s.fate.Recovered+s.troubleTo {
		s.fate.Starved = max(0, (waited-s.waited).Seconds()) / (at - s.troubleTo).Seconds()
	}
}

// lastCalls is longer than the gateway needs for the payments that it has when the consumer
// dies, and than the broker needs to notice that.
const lastCalls = 3 * slowed

// bury kills the consumer, and counts again when its last payments are made.
func (s *scene) bury(ctx context.Context, at time.Duration) error {
	s.fate.Died = at
	if err := s.consumer.Kill(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(lastCalls):
	}
	s.count(ctx)
	return nil
}

func (s *scene) call(ctx context.Context, method string, arg []byte, into any) error {
	resp := new(blob)
	if err := s.conn.Invoke(ctx, "/"+service+"/"+method, &blob{Value: arg}, resp); err != nil {
		return err
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(resp.GetValue(), into)
}

// waiting returns how long the threads of a process have waited for a processor so far, or 0
// if the system does not tell.
func waiting(pid int) (sum time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		data, _ := os.ReadFile(task) //nolint:gosec // a file of the kernel
		var ran, waited time.Duration
		if _, err := fmt.Sscan(string(data), &ran, &waited); err == nil {
			sum += waited
		}
	}
	return sum
}

// resident returns the memory of a process, or 0 if the system does not tell.
func resident(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
