package debug

import (
	"fmt"
	"time"

	"github.com/weir-go/weir/broker"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

// recentError is how long an error of a broker remains a finding.
const recentError = time.Minute

// messages returns the state of a broker's meter.
func messages(name string, s *broker.Stats, now time.Time, f *findings) *debugpb.Other {
	out := &debugpb.Other{Kind: "broker", Name: clean(name)}
	add := func(name, value string) {
		out.Fields = append(out.Fields, &debugpb.Field{Name: name, Value: clean(value)})
	}
	add("messages asked for and not settled", fmt.Sprint(s.Wanted))
	add("messages held here", fmt.Sprint(s.Held))
	add("handlers that run", fmt.Sprint(s.Running))
	add("consumers that pause", fmt.Sprint(s.Paused))
	add("fetched", fmt.Sprintf("%d, %d of them not for the first time", s.Fetched, s.Redelivered))
	for end, n := range s.Settled {
		add(broker.Settlement(end).String(), fmt.Sprint(n))
	}
	add("attempts that failed", fmt.Sprintf("%d, %d of them by a panic", s.Failed, s.Panics))
	add("attempts that were refused", fmt.Sprint(s.Refused))
	for cause, n := range s.Pauses {
		add("pauses by "+broker.PauseCause(cause).String(), fmt.Sprint(n))
	}
	add("time in pauses", inWords(seconds(s.PausedSeconds)))
	if s.LastPause != nil {
		add("cause of the last pause", s.LastPause.Error())
	}
	if s.LastError != nil {
		add("last error of the broker", s.LastError.Error())
	}
	f.broker(out.GetName(), s, now)
	return out
}

// broker remarks on messages that are not handled.
func (f *findings) broker(name string, s *broker.Stats, now time.Time) {
	source := "broker " + name
	if s.Paused > 0 {
		cause := "."
		if s.LastPause != nil {
			cause = ", because a message was refused: " + clean(s.LastPause.Error()) + "."
		}
		f.add(debugpb.Finding_LEVEL_WARNING, source, fmt.Sprintf(
			"%s%s Messages pile up at the broker until the pause ends. %s wait here.",
			pausing(s.Paused), cause, many(int64(s.Held), "message")))
	}
	if s.LastError != nil && now.Sub(s.LastErrorAt) < recentError {
		f.add(debugpb.Finding_LEVEL_WARNING, source, fmt.Sprintf("%s of the broker. The last one, %s ago: %s.",
			many(int64(s.Errors), "error"), inWords(now.Sub(s.LastErrorAt)), clean(s.LastError.Error())))
	}
}

func pausing(n int) string {
	if n == 1 {
		return "A consumer pauses"
	}
	return fmt.Sprintf("%d consumers pause", n)
}
