// Package rawload overloads a gRPC server at little cost for the machine. It writes HTTP/2
// frames by hand, in some microseconds a call. A client of grpc-go costs as much as the
// server's side of the call, so on the same machine the callers would saturate first.
package rawload

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// A Load is an open loop of unary calls. They come at random (Poisson), whether or not
// earlier ones were answered.
type Load struct {
	// Addr is the server's address, Method the full name of the method.
	Addr, Method string
	// Message is the request, serialized.
	Message []byte
	// Conns is the number of connections.
	Conns int
	// Rate is the number of calls a second.
	Rate float64
	// Patience is the timeout of each call, from the time at which it is due.
	Patience time.Duration
	// Warm is the time at the beginning during which calls are not counted. Length is the
	// time after it, during which they are.
	Warm, Length time.Duration
	// Seed makes the arrivals reproducible.
	Seed uint64
	// Edge is called at the beginning and the end of the counted part, unless it is nil.
	Edge func()
}

// A Result sums up the counted calls.
type Result struct {
	// Offered calls are Good (OK in time), Refused (UNAVAILABLE or RESOURCE_EXHAUSTED),
	// or Lost otherwise.
	Offered, Good, Refused, Lost int
	// P50 and P99 are latencies of Good calls, from the time at which they were due.
	// NoP50 and NoP99 are latencies of Refused calls. They are zero without any.
	P50, P99, NoP50, NoP99 time.Duration
	// Lag is the longest time by which calls were sent after they were due.
	Lag time.Duration
}

// A record is one call.
type record struct {
	due     time.Duration // since the start
	latency time.Duration
	outcome outcome
}

type outcome uint8

const (
	lost outcome = iota
	good
	refused
)

// Run makes the calls, waits for their answers for up to twice the patience, and
// counts. It returns early, with an error, when ctx ends.
func (l *Load) Run(ctx context.Context) (Result, error) {
	conns := make([]*conn, 0, l.Conns)
	var readers sync.WaitGroup
	defer func() {
		for _, c := range conns {
			_ = c.net.Close() // no call is pending any more
		}
		readers.Wait()
	}()
	start := time.Now()
	for range l.Conns {
		c, err := dial(ctx, l, start)
		if err != nil {
			return Result{}, fmt.Errorf("rawload: %w", err)
		}
		readers.Go(c.read)
		conns = append(conns, c)
	}
	lag, err := l.send(ctx, start, conns)
	if err != nil {
		return Result{}, fmt.Errorf("rawload: %w", err)
	}
	for end := time.Now().Add(2 * l.Patience); pending(conns) && time.Now().Before(end); {
		time.Sleep(nap)
	}
	return l.result(conns, lag), nil
}

// pending reports whether any call has no answer.
func pending(conns []*conn) bool {
	return slices.ContainsFunc(conns, func(c *conn) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.unanswered > 0
	})
}

// nap is the shortest sleep of the sender. Calls that are due meanwhile go out
// together.
const nap = 200 * time.Microsecond

// send sends each call when it is due, and returns the longest delay.
func (l *Load) send(ctx context.Context, start time.Time, conns []*conn) (lag time.Duration, err error) {
	random := rand.New(rand.NewPCG(l.Seed, 11))
	var due time.Duration
	warm, n := true, 0
	for due < l.Warm+l.Length && ctx.Err() == nil {
		now := time.Since(start)
		if warm && now >= l.Warm {
			warm = false
			l.edge()
		}
		if !warm {
			lag = max(lag, now-due)
		}
		for ; due <= now && due < l.Warm+l.Length; n++ {
			conns[n%len(conns)].add(due)
			due += time.Duration(random.ExpFloat64() / l.Rate * float64(time.Second))
		}
		for _, c := range conns {
			if err := c.flush(); err != nil {
				return lag, err
			}
		}
		time.Sleep(max(nap, due-time.Since(start)))
	}
	l.edge()
	return lag, ctx.Err()
}

func (l *Load) edge() {
	if l.Edge != nil {
		l.Edge()
	}
}

func (l *Load) result(conns []*conn, lag time.Duration) Result {
	r := Result{Lag: lag}
	var yes, no []time.Duration
	for _, c := range conns {
		c.mu.Lock()
		for _, x := range c.calls {
			switch {
			case x.due < l.Warm:
				continue
			case x.outcome == good:
				yes = append(yes, x.latency)
			case x.outcome == refused:
				no = append(no, x.latency)
			}
			r.Offered++
		}
		c.mu.Unlock()
	}
	r.Good, r.Refused = len(yes), len(no)
	r.Lost = r.Offered - r.Good - r.Refused
	r.P50, r.P99 = quantiles(yes)
	r.NoP50, r.NoP99 = quantiles(no)
	return r
}

func quantiles(d []time.Duration) (p50, p99 time.Duration) {
	if len(d) == 0 {
		return 0, 0
	}
	slices.Sort(d)
	return d[len(d)/2], d[len(d)*99/100]
}

// request returns the headers and the message of a call, encoded.
func (l *Load) request() (headers, message []byte) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0) // the same block serves every call
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: l.Method},
		{Name: ":authority", Value: l.Addr},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
		{Name: "grpc-timeout", Value: fmt.Sprintf("%dm", l.Patience.Milliseconds())},
	} {
		_ = e.WriteField(f) // a bytes.Buffer does not fail
	}
	message = append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(l.Message)))...)
	return b.Bytes(), append(message, l.Message...)
}

// classify returns the outcome of an answer.
func (l *Load) classify(status string, latency time.Duration) outcome {
	switch {
	case status == statusOK && latency <= l.Patience:
		return good
	case status == statusUnavailable, status == statusExhausted:
		return refused
	}
	return lost
}

// These are statuses as they are on the wire.
var (
	statusOK          = strconv.Itoa(int(codes.OK))
	statusUnavailable = strconv.Itoa(int(codes.Unavailable))
	statusExhausted   = strconv.Itoa(int(codes.ResourceExhausted))
)

// settings let the peer send without flow control, because the reader never waits.
var settings = []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}, {ID: http2.SettingEnablePush}}
