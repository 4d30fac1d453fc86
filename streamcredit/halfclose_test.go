package streamcredit_test

import (
	"errors"
	"slices"
	"testing"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

func wantWrote(t *testing.T, p *streamcredit.Scripted, want ...string) {
	t.Helper()
	if got := p.Wrote(); !slices.Equal(got, want) {
		t.Errorf("written: got %q, want %q", got, want)
	}
}

// The server ends its direction just when Close writes what is to be written before Complete: the
// half-close comes after that.
func TestCompleteBeforeTheHalfClose(t *testing.T) {
	var p *streamcredit.Scripted
	var err error
	p, err = streamcredit.NewScripted(t.Context(), func(c *creditpb.Control) {
		if c.GetHeartbeat() != nil {
			if err := p.Completed(); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Beat()
	if err := p.Sender().Close(); err != nil {
		t.Errorf("Close: got %v, want none", err)
	}
	wantWrote(t, p, "*creditpb.Control_Heartbeat", "*creditpb.Control_Complete", "half-close")
}

// A Send that comes too late finds the half-close to be written: it is not lost.
func TestALateSendKeepsTheHalfClose(t *testing.T) {
	p, err := streamcredit.NewScripted(t.Context(), func(*creditpb.Control) {})
	if err != nil {
		t.Fatal(err)
	}
	p.Canceled()
	if err := p.Completed(); err != nil {
		t.Fatal(err)
	}
	if err := p.Sender().Send(t.Context(), 1); !errors.Is(err, streamcredit.ErrCanceled) {
		t.Errorf("Send: got %v, want ErrCanceled", err)
	}
	wantWrote(t, p, "half-close")
}

// After the half-close nothing is written, whatever else is to be.
func TestASendAfterTheHalfClose(t *testing.T) {
	p, err := streamcredit.NewScripted(t.Context(), func(*creditpb.Control) {})
	if err != nil {
		t.Fatal(err)
	}
	p.Canceled()
	if err := p.Completed(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Sender().Send(t.Context(), 1); !errors.Is(err, streamcredit.ErrCanceled) {
			t.Errorf("Send: got %v, want ErrCanceled", err)
		}
		p.Beat() // a heartbeat that wants an answer has come
	}
	wantWrote(t, p, "half-close")
}
