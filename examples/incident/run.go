package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/internal/child"
)

const (
	workers  = 20 // of the gateway, and of the bare consumer
	usual    = 20 * time.Millisecond
	slowed   = 10 * usual
	rate     = 300      // payments a second
	size     = 32 << 10 // bytes of a payment
	memory   = 80 << 20 // of each consumer
	sampling = 200 * time.Millisecond
)

// The times of the play, from its beginning.
const (
	troubleFrom = 4 * time.Second
	troubleTo   = 14 * time.Second
	produceTo   = 18 * time.Second
	end         = 40 * time.Second // at the latest
)

// A sample is the state of a consumer at one moment.
type sample struct {
	At     float64 `json:"at"`     // seconds
	Memory float64 `json:"memory"` // MiB
	Paid   float64 `json:"paid"`   // a second
	Lag    int     `json:"lag"`    // records that are not committed
	Dead   bool    `json:"dead"`
	report
}

// A fate is the end of a consumer.
type fate struct {
	Died      time.Duration // since the beginning; 0 if it did not
	Peak      int64         // bytes
	MaxLag    int
	Paid      ledger
	Committed int
	Produced  int
	Before    float64       // paid a second before the trouble
	Recovered time.Duration // from the end of the trouble until the lag was gone; 0 if it never was
	WorkOff   float64       // paid a second, meanwhile
}

// A scene is one consumer with its gateway.
type scene struct {
	name     string
	broker   string
	began    time.Time
	kafka    *kgo.Client // of the parent
	produced *atomic.Int64
	see      func(sample)

	consumer, gateway *child.Process
	conn              *grpc.ClientConn
	fate              fate
	now               atomic.Pointer[report]
}

// play runs a consumer to its end.
func (s *scene) play(ctx context.Context) (_ fate, err error) {
	ctx, cancel := context.WithDeadline(ctx, s.began.Add(end))
	defer cancel()
	var addr string
	if s.gateway, addr, err = start(ctx, job{Role: roleGateway}); err != nil {
		return s.fate, err
	}
	defer func() { err = errors.Join(err, s.gateway.Stop()) }()
	if s.conn, err = grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return s.fate, err
	}
	defer s.conn.Close()
	if s.consumer, err = child.Start(ctx, job{Role: s.name, Broker: s.broker, Gateway: addr}, 0); err != nil {
		return s.fate, err
	}
	var lines sync.WaitGroup
	lines.Go(s.read)
	s.watch(ctx)
	err = s.consumer.Kill()
	lines.Wait()
	return s.fate, errors.Join(err, s.consumer.Wait())
}

// start starts a child that prints its address.
func start(ctx context.Context, j job) (*child.Process, string, error) {
	p, err := child.Start(ctx, j, 0)
	if err != nil {
		return nil, "", err
	}
	if !p.Lines.Scan() {
		return nil, "", errors.Join(fmt.Errorf("incident: the %s printed no address", j.Role), p.Stop())
	}
	return p, p.Lines.Text(), nil
}

// read takes the reports of the consumer until it is gone.
func (s *scene) read() {
	s.now.Store(&report{})
	for s.consumer.Lines.Scan() {
		var r report
		if json.Unmarshal(s.consumer.Lines.Bytes(), &r) == nil {
			s.now.Store(&r)
		}
	}
}

// watch slows the gateway down and up again, samples, and kills a consumer that takes more
// memory than it may, in the place of the kernel. It ends when all payments are made.
func (s *scene) watch(ctx context.Context) {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	each, last, lastAt := usual, 0, 0*time.Second
	var atTo int
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		at := time.Since(s.began)
		if want := speed(at); want != each && s.call(ctx, "Slow", []byte(want.String()), nil) == nil {
			each = want
		}
		_ = s.call(ctx, "Ledger", nil, &s.fate.Paid) // or the last one counts
		used := resident(s.consumer.PID)
		s.fate.Peak = max(s.fate.Peak, used)
		s.fate.Produced = int(s.produced.Load())
		s.fate.Committed = s.committed(ctx)
		if at < troubleFrom {
			s.fate.Before = float64(s.fate.Paid.Distinct) / at.Seconds()
		}
		if at < troubleTo {
			atTo = s.fate.Paid.Distinct
		}
		lag := s.fate.Produced - s.fate.Committed
		s.fate.MaxLag = max(s.fate.MaxLag, lag)
		if at > troubleTo && s.fate.Recovered == 0 && s.fate.Produced-s.fate.Paid.Distinct < rate/3 {
			s.fate.Recovered = at - troubleTo
			s.fate.WorkOff = float64(s.fate.Paid.Distinct-atTo) / s.fate.Recovered.Seconds()
		}
		s.see(sample{
			At: at.Seconds(), Memory: float64(used) / (1 << 20), Lag: lag, Dead: used > memory,
			Paid: float64(s.fate.Paid.Distinct-last) / (at - lastAt).Seconds(), report: *s.now.Load(),
		})
		last, lastAt = s.fate.Paid.Distinct, at
		if used > memory {
			s.fate.Died = at
			return
		}
		if at > produceTo && s.fate.Paid.Distinct == s.fate.Produced && s.fate.Committed == s.fate.Produced {
			return
		}
	}
}

// speed returns how long the gateway needs for a payment.
func speed(at time.Duration) time.Duration {
	if at >= troubleFrom && at < troubleTo {
		return slowed
	}
	return usual
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

// committed returns the number of records that the consumer's group has committed.
func (s *scene) committed(ctx context.Context) (n int) {
	req := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, req.Group = s.name, s.name
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, s.kafka)
	if err != nil {
		return s.fate.Committed
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				n += int(max(0, p.Offset))
			}
		}
	}
	return n
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

// produce writes payments until ctx ends or its time is over.
func produce(ctx context.Context, client *kgo.Client, began time.Time, produced *atomic.Int64) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	filler := bytes.Repeat([]byte("x"), size-idBytes)
	var failed atomic.Pointer[error]
	sent := 0
	for at := time.Duration(0); at < produceTo && ctx.Err() == nil; at = time.Since(began) {
		for ; sent < int(at.Seconds()*rate); sent++ {
			r := &kgo.Record{Topic: topic, Partition: int32(sent % parts), Value: fmt.Appendf(nil, "%0*d%s", idBytes, sent, filler)}
			client.Produce(ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(&err)
					return
				}
				produced.Add(1)
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return client.Flush(ctx)
}
