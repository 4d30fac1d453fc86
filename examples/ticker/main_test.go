package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWithCreditNoMoreIsInFlightThanTheWindow(t *testing.T) {
	s := settings{duration: 500 * time.Millisecond, slow: 4, every: 10 * time.Millisecond, window: 8, bytes: 1024}
	r, err := run(t.Context(), s, true)
	if err != nil {
		t.Fatal(err)
	}
	// One more than the window: an element makes room when Recv returns it, and is counted after that.
	if r.inFlight > int64(s.window)+1 || r.inFlight == 0 {
		t.Errorf("in flight = %d, want 1 to %d", r.inFlight, s.window+1)
	}
	if r.consumed == 0 || r.sent == 0 {
		t.Errorf("consumed = %d of %d sent, want some", r.consumed, r.sent)
	}
}

// In a bubble, so that times are exact: a client that asks for four elements at a time and reads them every
// second gets elements that are as old as it lets them become.
func TestAnElementIsMadeWhenThereIsDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &ticker{credit: true, sent: make([]atomic.Int64, 2)}
		client := demopb.NewStreamServiceClient(grpctest.Start(t, func(r grpc.ServiceRegistrar) {
			demopb.RegisterStreamServiceServer(r, server)
		}).Conn)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithManualDemand(),
			streamcredit.WithSetup(&demopb.SubscribeRequest{Count: 1, PayloadBytes: 10}))
		if err != nil {
			t.Fatal(err)
		}
		number := int64(0)
		for range 3 {
			time.Sleep(time.Second)
			asked := time.Now()
			if err := in.Request(4); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				e, err := in.Recv(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if number++; e.GetNumber() != number {
					t.Errorf("element %d, want %d", e.GetNumber(), number)
				}
				if made := time.Unix(0, e.GetMadeUnixNanos()); !made.Equal(asked) || len(e.GetPayload()) != 10 {
					t.Errorf("made %v before it was asked for, with %d bytes; want 0 and 10", asked.Sub(made), len(e.GetPayload()))
				}
			}
		}
		synctest.Wait()
		if got := server.sent[1].Load(); got != 12 {
			t.Errorf("sent = %d, want 12", got)
		}
	})
}

func TestTheSummaryOfAges(t *testing.T) {
	var a ages
	if median, last := a.summary(); median != 0 || last != 0 {
		t.Errorf("summary of none = %v, %v; want 0, 0", median, last)
	}
	for _, d := range []time.Duration{9, 1, 8, 2, 5} {
		a.add(d)
	}
	for range 2 { // it changes nothing
		if median, last := a.summary(); median != 5 || last != 5 {
			t.Errorf("summary = %v, %v; want 5, 5", median, last)
		}
	}
}

func TestAllMistakesAreNamed(t *testing.T) {
	for _, s := range []settings{
		{slow: -1, every: -1, bytes: -1},
		{duration: -1, slow: math.MaxInt, window: math.MinInt, bytes: math.MaxInt},
	} {
		err := show(t.Context(), &bytes.Buffer{}, s)
		for _, flag := range []string{"-duration: got ", "-slow: got ", "-every: got ", "-window: got ", "-bytes: got "} {
			if err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("show(%v) = %v, want %q in it", s, err, flag)
			}
		}
	}
}

func TestAnInterruptEndsIt(t *testing.T) {
	for _, credit := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		s := settings{duration: time.Hour, slow: 2, every: time.Hour, window: 8, bytes: 1024}
		if _, err := run(ctx, s, credit); !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v, want it canceled", err)
		}
	}
}

func TestAStreamThatBreaksEndsIt(t *testing.T) {
	s := settings{duration: time.Hour, slow: 2, every: time.Millisecond, window: 8, bytes: 5 << 20} // validate would not let it
	for _, credit := range []bool{false, true} {
		if _, err := run(t.Context(), s, credit); err == nil || !strings.Contains(err.Error(), "larger than max") {
			t.Errorf("run = %v, want that the element is too large", err)
		}
	}
}

func TestTheTableHasBothRuns(t *testing.T) {
	var out bytes.Buffer
	s := settings{duration: 300 * time.Millisecond, slow: 4, every: 10 * time.Millisecond, window: 8, bytes: 1024}
	if err := show(t.Context(), &out, s); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(out.String()) {
		var name, median, last, heap string
		var sent, consumed, inFlight int
		if n, _ := fmt.Sscanf(line, "%s %d %d %d %s %s %s MiB", &name, &sent, &consumed, &inFlight, &median, &last, &heap); n != 7 {
			continue
		}
		rows++
		if inFlight == 0 || sent == 0 || consumed == 0 || (name != "bare" && inFlight > s.window+1) {
			t.Errorf("%q: want some of each, and with credit a window in flight", line)
		}
	}
	if rows != 2 || !strings.Contains(out.String(), "window of 8") {
		t.Errorf("%d rows in %q, want 2 and a conclusion", rows, out.String())
	}
}
