package metrics_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// Ways in which a subscription of a number of events ends.
const (
	inFull = iota
	failed
	left
	aborted
	starved
	ways
)

// publish sends the events of a subscription, whose payload says how it ends.
func publish(stream subscribeServer, m *streamcredit.Meter) error {
	out, query, err := streamcredit.ServeSend(stream,
		streamcredit.WithMeter(m), streamcredit.WithSendStallTimeout(10*time.Millisecond))
	if err != nil {
		return err
	}
	for i := range query.GetCount() {
		if query.GetPayloadBytes() == failed && i == query.GetCount()/2 {
			return status.Error(codes.Aborted, "half is enough")
		}
		if err := out.Send(stream.Context(), event()); err != nil {
			return err
		}
		if i%16 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return out.Finish(stream.Context())
}

// consume makes a subscription that ends in one of the ways, and returns how many
// events it got.
func consume(t *testing.T, c demopb.StreamServiceClient, m *streamcredit.Meter, events, way int) (got int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in, err := streamcredit.DialReceive(ctx, c.Subscribe, streamcredit.WithWindow(8), streamcredit.WithMeter(m),
		streamcredit.WithSetup(&demopb.SubscribeRequest{Count: int64(events), PayloadBytes: int32(way)}))
	if err != nil {
		t.Errorf("DialReceive: got %v, want no error", err)
		return 0
	}
	defer func() { _ = in.Close() }() // the error is that of All
	for _, err := range in.All(ctx) {
		if err != nil {
			if way == inFull || way == left {
				t.Errorf("event %d: got %v, want no error", got+1, err)
			}
			return got
		}
		got++
		if got%16 == 0 {
			time.Sleep(time.Millisecond)
		}
		switch half := got == events/2; {
		case half && way == left:
			return got
		case half && way == aborted:
			cancel()
		case half && way == starved:
			time.Sleep(20 * time.Millisecond)
		}
	}
	return got
}

// scrape scrapes until over, and reports counters that fall.
func scrape(t *testing.T, g prometheus.Gatherer, over *atomic.Bool) (open float64) {
	t.Helper()
	before, _ := numbers(t, g)
	for !over.Load() {
		time.Sleep(200 * time.Microsecond)
		after, gauges := numbers(t, g)
		notFallen(t, before, after)
		for name, n := range gauges {
			if n < 0 {
				t.Errorf("%s: got %v, want no less than 0", name, n)
			}
		}
		open = max(open, gauges["weir_stream_open meter=server"])
		before = after
	}
	return open
}

// Scrapes and streams at once, which open and end in every way: no counter falls,
// and in the end everything is counted once.
func TestScrapesWhileStreamsRun(t *testing.T) {
	const clients, rounds, each, scrapers = 8, 2, 200, 3
	synctest.Test(t, func(t *testing.T) {
		server, client := streamcredit.NewMeter("server"), streamcredit.NewMeter("client")
		r := collectStreams(t, server, client)
		c := handlers{subscribe: func(stream subscribeServer) error { return publish(stream, server) }}.start(t)
		var calls, scrapes sync.WaitGroup
		var over atomic.Bool
		var got, most atomic.Int64
		for range scrapers {
			scrapes.Go(func() { most.Store(int64(scrape(t, r, &over))) })
		}
		for range clients {
			calls.Go(func() {
				for i := range rounds * ways {
					n := consume(t, c, client, each, i%ways)
					if i%ways == inFull && n != each {
						t.Errorf("events of a stream in full: got %d, want %d", n, each)
					}
					got.Add(int64(n))
				}
			})
		}
		calls.Wait()
		over.Store(true)
		scrapes.Wait()
		synctest.Wait() // until the last handlers have returned

		if most.Load() < 2 {
			t.Errorf("open streams: got %d at most, want some at once", most.Load())
		}
		const opened = clients * rounds * ways
		for _, m := range []string{"server", "client"} {
			if n := count(t, r, "weir_stream_opened_total", m); n != opened {
				t.Errorf("streams opened by %s: got %v, want %v", m, n, opened)
			}
		}
		sent, received := count(t, r, "weir_stream_sent_elements_total", "server"), count(t, r, "weir_stream_received_elements_total", "client")
		if consumed := float64(got.Load()); sent < received || received < consumed || sent > consumed+8*opened {
			t.Errorf("got %v events sent, %v received, %v consumed, want no more of what is later, and the windows at most between",
				sent, received, consumed)
		}
		if n := count(t, r, "weir_stream_sent_bytes_total", "server"); n != 102*sent {
			t.Errorf("bytes sent: got %v, want %v, 102 for each of %v events", n, 102*sent, sent)
		}
		if n := count(t, r, "weir_stream_violations_total", "server"); n != clients*rounds {
			t.Errorf("violations: got %v, want %v, one for each starved stream", n, clients*rounds)
		}
		if n := count(t, r, "weir_stream_violations_total", "client"); n != 0 {
			t.Errorf("violations that clients found: got %v, want 0", n)
		}
		_, gauges := numbers(t, r)
		for name, n := range gauges {
			if n != 0 {
				t.Errorf("%s: got %v, want 0 without streams", name, n)
			}
		}
	})
}

// What a scrape of one meter costs, by its open streams.
func BenchmarkStreamScrape(b *testing.B) {
	for _, n := range []int{0, 100, 1000} {
		b.Run(fmt.Sprintf("streams=%d", n), func(b *testing.B) {
			m := streamcredit.NewMeter("feed")
			r := collectStreams(b, m)
			c := events(b, nil, func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error {
				<-ctx.Done()
				return out.Finish(ctx)
			})
			for range n {
				in := subscribe(b, c, m)
				b.Cleanup(func() { _ = in.Close() })
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
