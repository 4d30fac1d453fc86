package debug

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/pressure"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
	"github.com/weir-go/weir/streamcredit"
)

const (
	mostStreams = 100 // of a meter that are shown
	// stalled is how long a Send waits for demand before that is a finding.
	stalled = 5 * time.Second
)

// meter returns the state of a meter and of its streams that have waited longest.
func meter(m *streamcredit.Meter, now time.Time, f *findings) *debugpb.Meter {
	s := m.Stats()
	out := &debugpb.Meter{
		Name: clean(m.Name()), Open: int64(s.Streams), Opened: int64(s.Opened), Starving: int64(s.Starving), Credit: s.Credit,
		Unbounded: int64(s.Unbounded), Demand: s.Demand, Lag: int64(s.Lag), Window: s.Window,
		Sent: int64(s.Sent), Received: int64(s.Received), Dropped: int64(s.Dropped),
	}
	for why, n := range s.Violations {
		out.Violations = append(out.Violations, &debugpb.ReasonCount{Reason: strings.ToLower(string(why)), Count: int64(n)})
	}
	slices.SortFunc(out.GetViolations(), func(a, b *debugpb.ReasonCount) int { return strings.Compare(a.GetReason(), b.GetReason()) })
	stuck := 0
	var worst *debugpb.Stream
	for _, state := range m.Streams(mostStreams) {
		st := stream(&state, now)
		if state.SendWaits >= stalled || heldBack(&state) {
			if stuck++; worst == nil {
				worst = st
			}
		}
		out.Streams = append(out.Streams, st)
	}
	if worst != nil {
		text := fmt.Sprintf("%s stalled. The worst is %s with %s, open for %s: %s",
			are(int64(stuck), "stream"), orUnknown(worst.GetMethod()), orUnknown(worst.GetPeer()),
			inWords(seconds(worst.GetAgeSeconds())), worst.GetState())
		if worst.GetSending() != nil && worst.GetSending().GetCredit() == 0 && worst.GetSendWaitsSeconds() >= stalled.Seconds() {
			text += " The cause is at the receiver, so look there."
		}
		f.add(debugpb.Finding_LEVEL_CRITICAL, "meter "+out.GetName(), text)
	}
	return out
}

func are(n int64, noun string) string { return many(n, noun) + " " + verb(n, "is", "are") }

func orUnknown(s string) string {
	if s == "" {
		return "an unnamed one"
	}
	return s
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// heldBack reports whether the application holds a whole window and waits for more. It must
// finish elements first.
func heldBack(s *streamcredit.StreamState) bool {
	r := &s.Receiver
	return s.Receives && r.Window > 0 && int64(r.Held) >= r.Window && s.RecvWaits >= stalled
}

func stream(s *streamcredit.StreamState, now time.Time) *debugpb.Stream {
	out := &debugpb.Stream{
		Method: clean(s.Method), Peer: clean(s.Peer), Server: s.Server, AgeSeconds: now.Sub(s.Opened).Seconds(),
		State: whoWaits(s), SendWaitsSeconds: s.SendWaits.Seconds(), RecvWaitsSeconds: s.RecvWaits.Seconds(),
	}
	if s.Sends {
		out.Sending = &debugpb.Sending{Sent: int64(s.Sender.Sent), Consumed: int64(s.Sender.Consumed), Credit: bounded(s.Sender.Credit)}
	}
	if s.Receives {
		r := &s.Receiver
		out.Receiving = &debugpb.Receiving{
			Received: int64(r.Received), Consumed: int64(r.Consumed), Requested: bounded(r.Outstanding),
			Window: r.Window, Buffered: int64(r.Buffered),
		}
	}
	return out
}

// bounded returns -1 for a number without a bound.
func bounded(n int64) int64 {
	if n == math.MaxInt64 {
		return -1
	}
	return n
}

// whoWaits describes in words which end waits for the other.
func whoWaits(s *streamcredit.StreamState) string {
	var parts []string
	if s.Sends {
		parts = append(parts, senderWaits(s))
	}
	if s.Receives {
		parts = append(parts, receiverWaits(s))
	}
	return strings.Join(parts, " ")
}

func senderWaits(s *streamcredit.StreamState) string {
	o := &s.Sender
	switch open := int64(o.Sent) - int64(o.Consumed); {
	case s.SendWaits > 0 && o.Credit == 0 && o.Consumed > 0 && open > 0:
		return fmt.Sprintf("This end waits for demand for %s. The peer has %s that it has not consumed.",
			inWords(s.SendWaits), many(open, "element"))
	case s.SendWaits > 0 && o.Credit == 0:
		return fmt.Sprintf("This end waits for demand for %s. The peer asks for nothing more.", inWords(s.SendWaits))
	case s.SendWaits > 0:
		return fmt.Sprintf("This end waits for room in the byte window of the peer for %s.", inWords(s.SendWaits))
	case o.Credit == 0:
		return "This end has no credit, and nothing to send."
	}
	return "The peer waits for this end to send."
}

func receiverWaits(s *streamcredit.StreamState) string {
	r := &s.Receiver
	switch {
	case r.Window > 0 && int64(r.Held) >= r.Window && s.RecvWaits > 0:
		return fmt.Sprintf("The application holds %s, a whole window, and waits for more for %s. It must finish some.",
			many(int64(r.Held), "element"), inWords(s.RecvWaits))
	case r.Buffered > 0:
		return fmt.Sprintf("%s for the application.", waitFor(r.Buffered))
	case s.RecvWaits > 0 && r.Outstanding == 0:
		return fmt.Sprintf("The application waits for %s, and has asked the peer for nothing.", inWords(s.RecvWaits))
	case s.RecvWaits > 0:
		return fmt.Sprintf("This end waits for elements of the peer for %s.", inWords(s.RecvWaits))
	}
	return "The application is busy with what it has."
}

func waitFor(n int) string {
	if n == 1 {
		return "1 element waits"
	}
	return fmt.Sprintf("%d elements wait", n)
}

// monitor returns the state of a monitor. work says how much work the process holds.
func monitor(m *pressure.Monitor, work string, f *findings) *debugpb.Monitor {
	s := m.Stats()
	out := &debugpb.Monitor{
		Name: clean(m.Name()), Level: s.Level.String(), Signal: clean(s.Signal), Changes: int64(s.Changes),
		Elevated: s.Marks.Elevated, High: s.Marks.High, Extreme: s.Marks.Extreme, Release: s.Marks.Release,
	}
	for _, sig := range s.Signals {
		one := &debugpb.Signal{Name: clean(sig.Name), Value: sig.Value, Failures: int64(sig.Failures)}
		if sig.Err != nil {
			one.Error = clean(sig.Err.Error())
		}
		out.Signals = append(out.Signals, one)
		if sig.Name == s.Signal && s.Level > pressure.Calm {
			f.add(debugpb.Finding_LEVEL_CRITICAL, "monitor "+out.GetName(), fmt.Sprintf(
				"The pressure is %s, because %s is at %.0f %%. Gates refuse %s. %s",
				s.Level, one.GetName(), 100*sig.Value, refusedAt[s.Level], work))
		}
	}
	return out
}

// refusedAt says which calls gates refuse at a level.
var refusedAt = map[pressure.Level]string{
	pressure.Elevated: "classes below default", pressure.High: "classes below critical", pressure.Extreme: "every call",
}
