package metrics_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

func TestEverySeriesOfStreamsIsThereFromTheFirstScrape(t *testing.T) {
	golden(t, collectStreams(t, streamcredit.NewMeter("feed")), "stream_first_scrape.prom")
}

// begin has streams between two meters, in a bubble, for 10 s: one in each state
// that there is to see. What it returns ends them.
func begin(t *testing.T, server, client *streamcredit.Meter) (end func()) {
	t.Helper()
	ends := []func(){
		beginStarving(t, server, client), beginIdle(t, server, client),
		beginDropping(t, server, client), beginUpload(t, server, client),
	}
	beginSilent(t, server, client)
	time.Sleep(10 * time.Second)
	synctest.Wait()
	return func() {
		for _, end := range ends {
			end()
		}
		synctest.Wait()
	}
}

// beginStarving has a server that could send 10 events to a client that consumes
// one and has room for 4.
func beginStarving(t *testing.T, server, client *streamcredit.Meter) (end func()) {
	t.Helper()
	c := events(t, server, func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error {
		for range 10 {
			if err := out.Send(ctx, event()); err != nil {
				return err
			}
		}
		return out.Finish(ctx)
	})
	in := subscribe(t, c, client, streamcredit.WithWindow(4), streamcredit.WithMaxMessageBytes(1<<10))
	synctest.Wait()
	if _, err := in.Recv(t.Context()); err != nil {
		t.Fatalf("Recv: got %v, want an event", err)
	}
	return func() { _ = in.Close() } // of no interest: it has left
}

// beginIdle has a client that wants all events of a server that has none.
func beginIdle(t *testing.T, server, client *streamcredit.Meter) (end func()) {
	t.Helper()
	c := events(t, server, func(ctx context.Context, _ *streamcredit.Sender[*demopb.SubscribeResponse]) error {
		<-ctx.Done()
		return nil
	})
	in := subscribe(t, c, client, streamcredit.WithManualDemand())
	if err := in.Request(math.MaxInt64); err != nil {
		t.Fatalf("Request: got %v, want no error", err)
	}
	synctest.Wait()
	go func() { _, _ = in.Recv(t.Context()) }() // until the end
	return func() { _ = in.Close() }            // of no interest: it has left
}

// beginDropping has a server with five events at once, an outbox for two, and a
// client that asks for one when it is too late for the first.
func beginDropping(t *testing.T, server, client *streamcredit.Meter) (end func()) {
	t.Helper()
	c := events(t, server, func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error {
		box, err := streamcredit.NewOutbox(ctx, out, streamcredit.OutboxConfig{Capacity: 2, Policy: streamcredit.DropOldest})
		if err != nil {
			return err
		}
		for range 5 {
			if err := box.Put(ctx, event()); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return box.Close(ctx)
	})
	in := subscribe(t, c, client, streamcredit.WithManualDemand())
	synctest.Wait()
	if err := in.Request(1); err != nil {
		t.Fatalf("Request: got %v, want no error", err)
	}
	return func() { _ = in.Close() } // of no interest: it has left
}

// beginUpload has a client that was asked for five elements and has two.
func beginUpload(t *testing.T, server, client *streamcredit.Meter) (end func()) {
	t.Helper()
	c := handlers{upload: func(stream uploadServer) error {
		in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithManualDemand(), streamcredit.WithMeter(server))
		if err != nil {
			return err
		}
		if err := in.Request(5); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}}.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	out, err := streamcredit.DialSend(ctx, c.Upload, streamcredit.WithMeter(client))
	if err != nil {
		t.Fatalf("DialSend: got %v, want no error", err)
	}
	synctest.Wait()
	for range 2 {
		if err := out.Send(ctx, &demopb.UploadRequest{Payload: make([]byte, 50)}); err != nil {
			t.Fatalf("Send: got %v, want no error", err)
		}
	}
	return cancel
}

// beginSilent has a client that asks for nothing, which the server puts up with
// for a second.
func beginSilent(t *testing.T, server, client *streamcredit.Meter) {
	t.Helper()
	c := events(t, server, func(ctx context.Context, out *streamcredit.Sender[*demopb.SubscribeResponse]) error {
		return out.WaitCredit(ctx)
	}, streamcredit.WithFirstRequestTimeout(time.Second))
	subscribe(t, c, client, streamcredit.WithManualDemand())
	synctest.Wait()
}

func TestExpositionSaysWhatHappenedOnStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := streamcredit.NewMeter("server"), streamcredit.NewMeter("client")
		r := collectStreams(t, server, client)
		end := begin(t, server, client)
		defer end()
		golden(t, r, "stream_worked.prom")
	})
}

// What streams have counted stays when they end; their state does not.
func TestStreamsThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := streamcredit.NewMeter("server"), streamcredit.NewMeter("client")
		r := collectStreams(t, server, client)
		end := begin(t, server, client)
		before, _ := numbers(t, r)
		end()
		after, gauges := numbers(t, r)
		notFallen(t, before, after)
		for _, name := range []string{
			"opened_total", "sent_elements_total", "sent_bytes_total", "received_elements_total", "received_bytes_total",
			"starved_seconds_total", "waited_seconds_total",
		} {
			for _, m := range []string{"server", "client"} {
				series := "weir_stream_" + name + " meter=" + m
				if was, is := before[series], after[series]; is != was {
					t.Errorf("%s: got %v, want %v as before the end", series, is, was)
				}
			}
		}
		for name, n := range gauges {
			if n != 0 {
				t.Errorf("%s: got %v, want 0 without streams", name, n)
			}
		}
	})
}

func TestStreamLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(collectStreams(t, streamcredit.NewMeter("feed")))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
