package streamcredit

import (
	"log/slog"
	"time"
)

// logEvery is the least time between two lines with one reason.
const logEvery = time.Second

// LogTo makes the meter log streams that this end has ended because the peer broke the protocol
// or stalled. It writes at most one line a second for each reason, with the number of streams
// since the last line. A nil logger ends that.
func (m *Meter) LogTo(l *slog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log, m.logged = l, map[Reason]sampled{}
}

// A sampled lets one line a second pass.
type sampled struct {
	next time.Time // when the next line may be written
	held uint64    // streams since the last line
}

// sampleLocked counts a stream, and returns the logger if a line is due. n is the number of
// streams that the line stands for.
func (m *Meter) sampleLocked(why Reason) (log *slog.Logger, n uint64) {
	if m.log == nil {
		return nil, 0
	}
	s := m.logged[why]
	s.held++
	if now := time.Now(); !now.Before(s.next) {
		n, log, s = s.held, m.log, sampled{next: now.Add(logEvery)}
	}
	m.logged[why] = s
	return log, n
}
