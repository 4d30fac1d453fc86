package streamcredit_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// A meter shows each open stream. The stream with a Send that has waited longest comes first.
func TestMeterShowsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, mine := streamcredit.NewMeter("server"), streamcredit.NewMeter("client")
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(m))
			for n := 0; err == nil; n++ {
				err = out.Send(stream.Context(), event(n))
			}
			return err
		}}.start(t)
		dial := func(opts ...streamcredit.ReceiveOption) *streamcredit.Receiver[*demopb.SubscribeResponse] {
			in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, append(opts, streamcredit.WithMeter(mine))...)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return in
		}
		first := dial(streamcredit.WithWindow(4))
		time.Sleep(10 * time.Second)
		second := dial(streamcredit.WithWindow(2))
		time.Sleep(5 * time.Second)

		got := m.Streams(10)
		if len(got) != 2 {
			t.Fatalf("streams: got %d, want 2", len(got))
		}
		s := got[0]
		if s.Method != "/weir.demo.v1.StreamService/Subscribe" || s.Peer == "" || !s.Server || !s.Sends || s.Receives ||
			s.SendWaits != 15*time.Second || s.Sender.Sent != 4 || s.Sender.Credit != 0 || time.Since(s.Opened) != 15*time.Second {
			t.Errorf("the first stream: got %+v, want a Send that has waited for 15 s after 4 elements", s)
		}
		if got[1].SendWaits != 5*time.Second || got[1].Sender.Sent != 2 {
			t.Errorf("the second stream: got %+v, want a Send that has waited for 5 s after 2 elements", got[1])
		}
		if n := len(m.Streams(1)); n != 1 {
			t.Errorf("Streams(1): got %d, want 1", n)
		}
		if n := len(m.Streams(-1)); n != 0 {
			t.Errorf("Streams(-1): got %d, want none", n)
		}
		for range 4 {
			if _, err := first.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		own := mine.Streams(10)
		if len(own) != 2 || own[0].Server || own[0].Method != "" || own[0].Sends || !own[0].Receives || own[0].RecvWaits != 0 {
			t.Errorf("the client's ends: got %+v, want two receivers that do not wait", own)
		}
		first.Close()
		second.Close()
		synctest.Wait()
		if n := len(m.Streams(10)) + len(mine.Streams(10)); n != 0 {
			t.Errorf("after the end: got %d streams, want none", n)
		}
	})
}

// Streams that were ended because the peer stalled are logged, one line a second and reason.
func TestMeterLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		m := streamcredit.NewMeter("feed")
		m.LogTo(slog.New(slog.NewTextHandler(&lines, nil)))
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(m), streamcredit.WithSendStallTimeout(time.Second))
			for n := 0; err == nil; n++ {
				err = out.Send(stream.Context(), event(n))
			}
			return err
		}}.start(t)
		stall := func(n int) {
			for range n {
				in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithWindow(1))
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
			}
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
		}
		stall(3)
		stall(1)
		got := strings.Split(strings.TrimSpace(lines.String()), "\n")
		if len(got) != 2 || !strings.Contains(got[0], `level=WARN msg="weir: a stream was ended" meter=feed reason=CREDIT_STARVED streams=1`) ||
			!strings.HasSuffix(got[1], "streams=3") {
			t.Errorf("log: got %q, want one line for the first stream, and one for the next three", got)
		}
		m.LogTo(nil)
		stall(1)
		if n := strings.Count(lines.String(), "\n"); n != 2 {
			t.Errorf("without a logger: got %d lines, want 2", n)
		}
	})
}
