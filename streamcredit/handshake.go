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
	// header is the response header by which a client recognizes a server that knows the
	// protocol.
	header = "weir-credit-version"
	// minHeartbeat is the shortest interval that this end honors.
	minHeartbeat = 100 * time.Millisecond
	// missedHeartbeats is the number of silent intervals after which the peer is taken for gone.
	missedHeartbeats = 3
)

// features returns the features that this end knows.
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

// open handles the peer's first message.
func (s *session[O, I]) open(c *creditpb.Control, elements []I) error {
	o := c.GetOpen()
	if c != nil {
		s.controls.Add(1)
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
	s.peerReceives = o.GetWillReceive()    // nothing else of the Open is kept, which may be huge
	s.beats(o.GetHeartbeat().AsDuration()) // before the demand, which lets a large element go that must be announced
	if r := o.GetInitial(); r != nil {
		if v := s.request(r, true); v != nil {
			return v
		}
	}
	close(s.opened)
	return nil
}

// agree checks the peer's Open, and applies its bounds and features.
func (s *session[O, I]) agree(o *creditpb.Open) *ProtocolError {
	lowest, highest := max(1, o.GetMinVersion()), max(1, o.GetMaxVersion())
	switch {
	case lowest > version || highest < version || lowest > highest:
		return violation(VersionMismatch, fmt.Sprintf("version %d", version), "versions %d to %d", lowest, highest)
	case s.out != nil && s.in == nil && !o.GetWillReceive():
		return violation(UnexpectedFrame, "an Open with will_receive", "one without it")
	case s.in != nil && s.out == nil && !o.GetWillSend():
		return violation(UnexpectedFrame, "an Open with will_send", "one without it")
	case s.in != nil && s.out != nil && (!o.GetWillSend() || !o.GetWillReceive()):
		return violation(UnexpectedFrame, "an Open with will_send and will_receive",
			"will_send %t, will_receive %t", o.GetWillSend(), o.GetWillReceive())
	case o.GetMaxMessageBytes() < 0 || o.GetMaxBufferedBytes() < 0 || o.GetMaxCredit() < 0:
		return violation(InvalidDemand, "bounds of 0 or more", "max_message_bytes %d, max_buffered_bytes %d, max_credit %d",
			o.GetMaxMessageBytes(), o.GetMaxBufferedBytes(), o.GetMaxCredit())
	}
	known := func(f creditpb.Feature) bool { return slices.Contains(o.GetFeatures(), f) }
	s.drains = known(creditpb.Feature_FEATURE_DRAIN)
	reports := known(creditpb.Feature_FEATURE_CONSUMED)
	if known(creditpb.Feature_FEATURE_BATCH) {
		s.wire.batch(batchBound(o))
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

// openUnaware begins a session with a client that does not know the protocol. The client's first
// message has an element.
func (s *session[O, I]) openUnaware(elements []I) error {
	s.w.unaware()
	s.peerReceives = true
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
