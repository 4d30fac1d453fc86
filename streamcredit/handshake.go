package streamcredit

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

const (
	version = 1
	// header is the response header that tells a client of a server that is aware.
	header = "weir-credit-version"
	// minHeartbeat is the shortest interval that is honoured.
	minHeartbeat = 100 * time.Millisecond
	// missedHeartbeats is how many intervals of silence mean that the peer is gone.
	missedHeartbeats = 3
)

// features returns what this end knows.
func (s *session[O, I]) features() []creditpb.Feature {
	return []creditpb.Feature{
		creditpb.Feature_FEATURE_CONSUMED, creditpb.Feature_FEATURE_DRAIN,
		creditpb.Feature_FEATURE_HEARTBEAT, creditpb.Feature_FEATURE_BATCH, creditpb.Feature_FEATURE_UNFINISHED,
	}
}

// hello returns this end's Open.
func (s *session[O, I]) hello() *creditpb.Control {
	o := &creditpb.Open{
		MinVersion: version, MaxVersion: version, Features: s.features(),
		WillSend: s.role.sends, WillReceive: s.role.receives,
		MaxMessageBytes: s.cfg.maxMessage, MaxBufferedBytes: s.cfg.byteWindow,
	}
	if s.cfg.heartbeat > 0 {
		o.Heartbeat = durationpb.New(s.cfg.heartbeat)
	}
	if s.cfg.rejectCredit {
		o.MaxCredit = s.cfg.maxCredit
	}
	if s.in != nil {
		n, held := s.in.first()
		if n > 0 {
			o.Initial = &creditpb.Request{N: n}
		}
		o.HeldMessages = held
	}
	return &creditpb.Control{Kind: &creditpb.Control_Open{Open: o}}
}

// open acts on the peer's first message.
func (s *session[O, I]) open(c *creditpb.Control, elements []I) error {
	o := c.GetOpen()
	if c != nil {
		s.controls.in.Add(1)
	}
	switch {
	case o == nil && s.role.server && s.cfg.unaware && c == nil && len(elements) > 0:
		return s.openUnaware(elements)
	case o == nil:
		return violation(UnexpectedFrame, "Open, from a peer that speaks the credit protocol", "a first message without it")
	case s.role.server && len(elements) > 1, !s.role.server && len(elements) > 0:
		return violation(UnexpectedFrame, "Open, from a client with one element at most", "Open with %d elements", len(elements))
	}
	if v := s.agree(o); v != nil {
		return v
	}
	if len(elements) == 1 {
		s.setup, s.hasSetup = elements[0], true
	}
	s.peerReceives = o.GetWillReceive() // and no more is kept of what a peer may have made huge
	if r := o.GetInitial(); r != nil {
		if v := s.request(r, true); v != nil {
			return v
		}
	}
	s.beats(o.GetHeartbeat().AsDuration())
	close(s.opened)
	return nil
}

// agree checks what the peer's Open asks for against what this end does.
func (s *session[O, I]) agree(o *creditpb.Open) *ProtocolError {
	lowest, highest := max(1, o.GetMinVersion()), max(1, o.GetMaxVersion())
	switch {
	case lowest > version || highest < version || lowest > highest:
		return violation(VersionMismatch, fmt.Sprintf("version %d", version), "versions %d to %d", lowest, highest)
	case s.out != nil && s.in == nil && !o.GetWillReceive():
		return violation(UnexpectedFrame, "a peer that receives: its Open must say will_receive", "one that does not")
	case s.in != nil && s.out == nil && !o.GetWillSend():
		return violation(UnexpectedFrame, "a peer that sends: its Open must say will_send", "one that does not")
	case s.in != nil && s.out != nil && (!o.GetWillSend() || !o.GetWillReceive()):
		return violation(UnexpectedFrame, "a peer that sends and receives: its Open must say will_send and will_receive",
			"will_send %t, will_receive %t", o.GetWillSend(), o.GetWillReceive())
	case o.GetMaxMessageBytes() < 0 || o.GetMaxBufferedBytes() < 0 || o.GetMaxCredit() < 0:
		return violation(InvalidDemand, "bounds of 0 or more", "max_message_bytes %d, max_buffered_bytes %d, max_credit %d",
			o.GetMaxMessageBytes(), o.GetMaxBufferedBytes(), o.GetMaxCredit())
	}
	known := func(f creditpb.Feature) bool { return slices.Contains(o.GetFeatures(), f) }
	s.drains = known(creditpb.Feature_FEATURE_DRAIN)
	reports := known(creditpb.Feature_FEATURE_CONSUMED)
	if known(creditpb.Feature_FEATURE_BATCH) {
		s.wire.batch(o.GetMaxMessageBytes())
	}
	if known(creditpb.Feature_FEATURE_UNFINISHED) {
		s.wire.warns()
	}
	if s.pulse = known(creditpb.Feature_FEATURE_HEARTBEAT); !s.pulse && s.cfg.heartbeat > 0 {
		return violation(VersionMismatch, "a peer with FEATURE_HEARTBEAT, for WithHeartbeat", "one without it")
	}
	if s.out != nil {
		s.out.agree(o, reports)
	}
	if s.in != nil {
		s.in.agree(reports, s.drains, o.GetMaxCredit())
	}
	return nil
}

// openUnaware begins a session with a client that knows nothing of the protocol, whose
// first message has an element.
func (s *session[O, I]) openUnaware(elements []I) error {
	s.quiet, s.peerReceives = true, true
	if s.out != nil {
		_, _ = s.out.demand(&creditpb.Request{N: unbounded})
	}
	if s.in == nil {
		s.setup, s.hasSetup = elements[0], true
		close(s.opened)
		return nil
	}
	s.in.unleash()
	close(s.opened)
	if v := s.in.push(elements); v != nil {
		return v
	}
	return nil
}

// beats starts the heartbeats: those that the peer asked for every d, and the watch on
// its own.
func (s *session[O, I]) beats(d time.Duration) {
	if !s.pulse {
		return
	}
	if d > 0 {
		s.pace(max(d, minHeartbeat))
	}
	if s.cfg.heartbeat > 0 {
		s.watch()
	}
}

// pace writes a heartbeat whenever nothing was written for three quarters of d: the rest is
// for the way and for a processor that is busy.
func (s *session[O, I]) pace(d time.Duration) {
	due := d - d/4
	if s.out != nil {
		s.out.weigh()
	}
	s.large.Store(int64(d.Seconds() * slowestRate))
	s.wroteAt.Store(int64(time.Since(s.began)))
	s.every(due, func() time.Duration {
		left := due - (time.Since(s.began) - time.Duration(s.wroteAt.Load()))
		if left > 0 {
			return left
		}
		s.pending.heartbeat(s.beat())
		s.write()
		return due
	})
}

// slowestRate is how many bytes a second a message makes at least that is on its way.
const slowestRate = 64 << 10

// noteWrite notes that something is written now.
func (s *session[O, I]) noteWrite() {
	s.wrote.Add(1)
	if s.wroteAt.Load() != 0 {
		s.wroteAt.Store(int64(time.Since(s.began)))
	}
}

// announce tells a peer that listens for heartbeats of an element that none can overtake, if
// it is large. s.w is held.
func (s *session[O, I]) announce(size int64) {
	if large := s.large.Load(); large == 0 || size <= large {
		return
	}
	b := s.beat()
	b.Sent, b.Credit = b.GetSent()-1, saturate(b.GetCredit(), 1) // take has counted it, and it comes after this
	b.NextBytes = size
	_ = s.put(&creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: b}}) // if it fails, so does the element
}

// watch ends the session when the peer is silent for too long, and could be heard: not
// after its half-close, nor while the read loop waits for the application, nor before a large
// element that the peer has announced can have arrived. It counts intervals and no time: a
// pause of this process is one.
func (s *session[O, I]) watch() {
	last, silent := s.read.Load(), 0
	s.every(s.cfg.heartbeat, func() time.Duration {
		select {
		case <-s.done:
			return 0
		default:
		}
		if now := s.read.Load(); now != last || s.in != nil && s.in.full.Load() {
			last, silent = now, 0
		} else {
			silent++
		}
		patience := missedHeartbeats
		if next := s.next.Load(); next > 0 {
			patience += int(time.Duration(next/slowestRate+1) * time.Second / s.cfg.heartbeat)
		}
		if silent >= patience {
			s.fail(violation(PeerStalled, "a message or a heartbeat every "+s.cfg.heartbeat.String(),
				"nothing for %d times that", silent))
		}
		return s.cfg.heartbeat
	})
}

// every calls f after d, and then after what it returns, until that is 0 or the session has
// ended.
func (s *session[O, I]) every(d time.Duration, f func() time.Duration) {
	var again *time.Timer
	s.mu.Lock() // so that again is set before it is used
	defer s.mu.Unlock()
	again = s.afterLocked(d, func() {
		d := f()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil && d > 0 {
			again.Reset(d)
		}
	})
}
