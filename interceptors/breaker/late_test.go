package breaker_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/breaker"
)

// A deadline that could not be met says nothing about the server, and neither does a
// caller that changes its mind: no caller loses a call because others are impatient.
func TestBreakerAmongImpatientCallers(t *testing.T) {
	ms := time.Millisecond
	patient := client{Period: 50 * ms, Gives: always(5 * time.Second), Patient: true}
	endless := client{Period: 50 * ms, Gives: always(time.Hour), Cancels: true, Patient: true}
	seldom := client{Period: 3 * time.Second, Gives: always(5 * time.Second), Patient: true}
	spread := func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(40*ms)) }
	for name, c := range map[string]struct {
		svc     *service
		callers []client
	}{
		"half have 20 ms":          {works(50 * ms), []client{patient, {Period: 50 * ms, Gives: always(20 * ms)}}},
		"nine of ten have 20 ms":   {works(50 * ms), []client{patient, {Period: 5 * ms, Gives: always(20 * ms)}}},
		"nearly all have 20 ms":    {works(50 * ms), []client{seldom, {Period: 10 * ms, Gives: always(20 * ms)}}},
		"just below":               {works(50 * ms), []client{patient, {Period: 5 * ms, Gives: always(49 * ms)}}},
		"others without deadlines": {works(50 * ms), []client{endless, {Period: 5 * ms, Gives: always(20 * ms)}}},
		"others cancel":            {works(50 * ms), []client{patient, {Period: 5 * ms, Gives: always(20 * ms), Cancels: true}}},
		"no deadlines, others cancel": {works(50 * ms), []client{
			endless, {Period: 5 * ms, Gives: always(20 * ms), Cancels: true},
		}},
		"deadlines of all lengths":   {works(50 * ms), []client{patient, {Period: 5 * ms, Gives: spread}}},
		"exponential calls":          {exponential(50 * ms), []client{patient, {Period: 5 * ms, Gives: always(20 * ms)}}},
		"exponential, all lengths":   {exponential(50 * ms), []client{patient, {Period: 5 * ms, Gives: spread}}},
		"a slow method from cold":    {works(3 * time.Second), []client{patient, {Period: 10 * ms, Gives: always(200 * ms)}}},
		"a method of a second":       {works(time.Second), []client{patient, {Period: 10 * ms, Gives: always(300 * ms), Cancels: true}}},
		"nobody is patient, some ms": {works(5 * ms), []client{{Period: 5 * ms, Gives: always(20 * ms), Patient: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, breaker.Config{})
				r := start(t, c.svc, nil, breakerDial(b)...)
				made, served := callers(t, r.DemoServiceClient, 15*time.Second, c.callers...)
				if s := circuit(t, b); served < made || s.Opened > 0 {
					t.Errorf("patient callers: got %d of %d served, want all, and the circuit never open (%+v)", served, made, s)
				}
			})
		})
	}
}

// A server that hangs opens the circuit, however its callers give up, whether it
// answered before or not, and closes it when it is back.
func TestBreakerOfAServerThatHangs(t *testing.T) {
	ms := time.Millisecond
	for name, c := range map[string]struct {
		well    time.Duration // what calls take before and after
		before  time.Duration // how long it is well
		callers []client
		within  time.Duration // after it hangs
	}{
		"deadlines":             {10 * ms, 10 * time.Second, []client{{Period: 50 * ms, Gives: always(300 * ms)}}, 8 * time.Second},
		"cancels":               {10 * ms, 10 * time.Second, []client{{Period: 50 * ms, Gives: always(300 * ms), Cancels: true}}, 8 * time.Second},
		"late cancels":          {10 * ms, 10 * time.Second, []client{{Period: 50 * ms, Gives: always(2 * time.Second), Cancels: true}}, 9 * time.Second},
		"both":                  {50 * ms, 10 * time.Second, []client{{Period: 100 * ms, Gives: always(300 * ms), Cancels: true}, {Period: 100 * ms, Gives: always(400 * ms)}}, 9 * time.Second},
		"little time to spare":  {50 * ms, 10 * time.Second, []client{{Period: 50 * ms, Gives: always(80 * ms)}}, 9 * time.Second},
		"some have too little":  {50 * ms, 10 * time.Second, []client{{Period: 50 * ms, Gives: always(20 * ms)}, {Period: 50 * ms, Gives: always(time.Second)}}, 9 * time.Second},
		"deadlines, at once":    {10 * ms, 0, []client{{Period: 50 * ms, Gives: always(300 * ms)}}, 4 * time.Second},
		"cancels, at once":      {10 * ms, 0, []client{{Period: 50 * ms, Gives: always(300 * ms), Cancels: true}}, 4 * time.Second},
		"late cancels, at once": {10 * ms, 0, []client{{Period: 50 * ms, Gives: always(2 * time.Second), Cancels: true}}, 4 * time.Second},
		"mixed deadlines, at once": {10 * ms, 0, []client{
			{Period: 50 * ms, Gives: always(300 * ms)}, {Period: 50 * ms, Gives: always(time.Hour)},
		}, 13 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, hangs := time.Now(), c.before+20*time.Second
				b := newBreaker(t, breaker.Config{})
				r := start(t, &service{OnWork: func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
					if at := time.Since(began); at >= c.before && at < hangs {
						return works(time.Hour).OnWork(ctx, req)
					}
					return works(c.well).OnWork(ctx, req)
				}}, nil, breakerDial(b)...)
				for i := range c.callers {
					c.callers[i].Patient = true
				}
				var load sync.WaitGroup
				load.Go(func() { callers(t, r.DemoServiceClient, c.before+27*time.Second, c.callers...) })
				time.Sleep(c.before)
				if s := b.Stats(); len(s) > 0 && s[0].Opened > 0 {
					t.Errorf("circuit before the server hangs: got %+v, want it never opened", s)
				}
				time.Sleep(c.within)
				if s := circuit(t, b); s.Opened == 0 {
					t.Errorf("circuit after %v: got %+v, want it opened", c.within, s)
				}
				time.Sleep(27*time.Second - c.within)
				wantState(t, b, breaker.Closed) // an OpenFor after the server is back
				r.Conn.Close()
				load.Wait()
			})
		})
	}
}

// A server that gives up by itself, with most of the caller's time left, is unwell.
func TestBreakerOfAServerThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		r := start(t, &service{OnWork: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			time.Sleep(10 * time.Millisecond)
			return nil, status.Error(codes.DeadlineExceeded, "of a call further on")
		}}, nil, breakerDial(b)...)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := r.Work(ctx, &demopb.WorkRequest{})
			wantCode(t, err, codes.DeadlineExceeded)
			cancel()
		}
		wantState(t, b, breaker.Open)
	})
}

// Streams that are answered late, or that wait for their first message for as long as
// their callers like, are not the server's fault.
func TestBreakerAmongImpatientStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		r := start(t, &service{OnExchange: func(s demopb.DemoService_ExchangeServer) error {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.Context().Done():
				return status.FromContextError(s.Context().Err()).Err()
			}
			if err := s.SendHeader(metadata.MD{}); err != nil {
				return err
			}
			<-s.Context().Done()
			return status.FromContextError(s.Context().Err()).Err()
		}}, nil, breakerDial(b)...)
		for i := range 200 {
			d := 20 * time.Millisecond
			if i%10 == 0 {
				d = 200 * time.Millisecond
			}
			for _, with := range []func() (context.Context, context.CancelFunc){
				func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), d) },
				func() (context.Context, context.CancelFunc) {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Minute, cancel)
					return ctx, cancel
				},
			} {
				ctx, cancel := with()
				s, err := r.Exchange(ctx)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = s.Header()
				cancel()
			}
		}
		if s := circuit(t, b); s.Opened > 0 || s.Failed > 0 {
			t.Errorf("circuit: got %+v, want no failure", s)
		}
	})
}

// A call that goes well allocates what gobreaker does.
func TestBreakerAllocates(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	call, ctx := breaker.Unary(b), t.Context()
	if n := testing.AllocsPerRun(1000, func() { _ = call(ctx, work, nil, nil, nil, well) }); n > 1 {
		t.Errorf("allocations of a call: got %v, want 1", n)
	}
}
