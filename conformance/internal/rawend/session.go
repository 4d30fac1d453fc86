package rawend

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

const (
	unbounded        = math.MaxInt64
	handshakeTimeout = 10 * time.Second
	firstRequest     = 30 * time.Second // a server's
	burst, rate      = 1000, 100        // the flood rule
	announceBytes    = 64 << 10         // a second of a large element
	idleReport       = 50 * time.Millisecond
)

// How directions end, besides io.EOF and statusErrors.
var (
	errCanceled  = errors.New("the receiver has canceled")
	errGoingAway = errors.New("the sender is going away")
	errTooLarge  = errors.New("too large for the receiver")
	errLate      = errors.New("it took too long")
)

// kindOf returns the kind of an end, and its status.
func kindOf(err error) (int, *statusError) {
	var s *statusError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return kindOfComplete, nil
	case errors.Is(err, errGoingAway):
		return kindOfGoingAway, nil
	case errors.As(err, &s):
		return kindOfFailed, s
	default:
		return kindOfCanceled, nil
	}
}

// codeOf is the code of each violation.
var codeOf = map[string]int{
	"INVALID_DEMAND": invalidArgumentCode, "INVALID_CONSUMED": invalidArgumentCode,
	"UNEXPECTED_FRAME": failedPrecondition, "VERSION": failedPrecondition, "AFTER_TERMINAL": failedPrecondition,
	"DEMAND_TOO_LARGE": resourceExhaustedCode, "CREDIT_EXCEEDED": resourceExhaustedCode, "BYTES_EXCEEDED": resourceExhaustedCode,
	"MESSAGE_TOO_LARGE": resourceExhaustedCode, "CONTROL_FLOOD": resourceExhaustedCode,
	"COUNT_MISMATCH":    dataLossCode,
	"HANDSHAKE_TIMEOUT": deadlineExceededCode, "FIRST_REQUEST_TIMEOUT": deadlineExceededCode, "CREDIT_STARVED": deadlineExceededCode,
	"PEER_STALLED": unavailableCode,
}

func violation(reason string) error {
	return &statusError{code: codeOf[reason], reason: reason, message: "raw: " + reason}
}

// A bucket is the flood rule: what elements bring never expires, and what time brings fills up to burst.
type bucket struct {
	elements int64
	time     float64
	most     float64
	at       time.Time
}

func newBucket(most float64) bucket { return bucket{time: most, most: most, at: time.Now()} }

func (b *bucket) spend() bool {
	now := time.Now()
	b.time = min(b.most, b.time+rate*now.Sub(b.at).Seconds())
	b.at = now
	switch {
	case b.time >= 1:
		b.time--
	case b.elements >= 1:
		b.elements--
	default:
		return false
	}
	return true
}

// An item waits to be written.
type item struct {
	c       *control
	number  int64 // of an element, where c is nil
	payload int64
	more    int64 // elements in the same Frame: BatchesTooMuch
	half    bool  // the end of what a client writes
	done    bool
}

// A session is one end of one stream: a ledger for each direction, and a queue of what is to be written.
type session struct {
	st     *stream
	server bool
	framed bool
	script *script
	fault  Fault

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	queue   []*item
	waiting bool  // an element is in the queue
	batched int64 // elements that the last one took along: BatchesTooMuch
	halved  bool
	over    error // the stream has ended, in whatever way
	stopped bool  // nothing is written any more
	wrote   time.Time
	heard   time.Time
	grace   time.Duration // for an element that was announced
	theirs  bucket
	mine    bucket

	peer      open
	features  map[uint64]bool // known to both
	beatEvery time.Duration   // how often to write something; 0: no bound

	outgoing
	incoming
}

// outgoing is the ledger of what this end sends.
type outgoing struct {
	credit   int64 // sticky where it is unbounded
	asked    bool  // for anything
	sent     uint64
	told     uint64 // the peer has consumed
	sizes    []int64
	held     int64 // the sum of sizes
	deserted bool  // a client asks for no more
	outEnd   error // nil: it has not ended
	terminal bool
}

// incoming is the ledger of what this end receives.
type incoming struct {
	granted, received, consumed, reported int64
	owed                                  int64 // demand that waits for the sender's bound, or a drain
	buffer                                []element
	weights                               []int64 // of what is not consumed
	weight, unreported                    int64   // bytes: the sum of weights, and consumed but not reported
	draining                              bool
	burned                                int64
	inEnd                                 error
	complete                              bool // the peer's terminal was read
	quit                                  bool // canceled
}

func newSession(st *stream, server, framed bool, sc *script, fault Fault) *session {
	now := time.Now()
	return &session{
		st: st, server: server, framed: framed, script: sc, fault: fault, changed: make(chan struct{}),
		wrote: now, heard: now, theirs: newBucket(burst), mine: newBucket(burst / 2), features: map[uint64]bool{},
	}
}

// changeLocked wakes all that wait.
func (s *session) changeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// waitLocked waits for a change. It returns false at the time of the timer.
func (s *session) waitLocked(timer <-chan time.Time) bool {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return true
	case <-timer:
		return false
	}
}

// endLocked ends the session. Directions that have ended stay as they are.
func (s *session) endLocked(err error) {
	if s.over == nil {
		s.over = err
	}
	if s.outEnd == nil {
		s.outEnd = err
		if errors.Is(err, io.EOF) {
			s.outEnd = errCanceled
		}
	}
	if s.inEnd == nil {
		s.inEnd = err
		if s.fault == DropsBuffered && !errors.Is(err, io.EOF) {
			s.buffer = nil
		}
	}
	s.changeLocked()
}

func (s *session) fail(err error) {
	s.mu.Lock()
	s.endLocked(err)
	s.mu.Unlock()
}

// greet is the Open of this end.
func (s *session) greet() *control {
	o := open{
		minVersion: 1, maxVersion: 1,
		features: map[uint64]bool{featureConsumed: true, featureDrain: true, featureHeartbeat: true, featureBatch: true},
		willSend: s.script.send != nil, willReceive: s.script.receive != nil,
		maxMessage: s.script.receive[receiveMaxMessage], maxBuffered: s.script.receive[receiveBytes],
		heartbeatNanos: s.script.heartbeatMs * int64(time.Millisecond),
	}
	if !s.server {
		o.features[featureUnfinished] = true
	}
	if s.script.send[sendReject] != 0 && s.fault != HidesBound {
		o.maxCredit = s.script.send[sendMaxCredit]
	}
	if n := s.grantLocked(); n > 0 {
		o.initial = &control{kind: kindRequest, n: n}
	}
	return &control{kind: kindOpen, open: o}
}

// grantLocked takes the next demand, 0 if there is none.
func (s *session) grantLocked() int64 {
	if s.inEnd != nil || s.draining {
		return 0
	}
	var n int64
	if w := s.windowLocked(); w > 0 {
		if room := w - (s.granted - s.consumed); room >= max(1, w-w/2) {
			n = room
		}
	} else {
		n = s.owed
		if s.peer.maxCredit > 0 && s.fault != AsksTooMuch {
			n = max(0, min(n, s.peer.maxCredit-(s.granted-s.received)))
		}
		s.owed -= n
	}
	s.granted += min(n, unbounded-s.granted)
	return n
}

func (s *session) windowLocked() int64 {
	w := s.script.receive[receiveWindow]
	if s.peer.maxCredit > 0 && s.fault != AsksTooMuch {
		w = min(w, s.peer.maxCredit)
	}
	return w
}

// putLocked queues control. Demand and heartbeats join those that are there.
func (s *session) putLocked(c *control) {
	for _, it := range s.queue {
		if it.c == nil || it.c.kind != c.kind {
			continue
		}
		switch c.kind {
		case kindRequest:
			it.c.n += min(c.n, unbounded-it.c.n)
			it.c.consumed = max(it.c.consumed, c.consumed)
			it.c.drain = it.c.drain || c.drain
			return
		case kindHeartbeat:
			if it.c.nextBytes == 0 && c.nextBytes == 0 {
				*it.c = *c
				return
			}
		}
	}
	s.queue = append(s.queue, &item{c: c})
	s.changeLocked()
}

// beatLocked is a heartbeat.
func (s *session) beatLocked() *control {
	return &control{kind: kindHeartbeat, sent: s.sent, credit: s.shownLocked()}
}

// shownLocked is the credit that is kept: beyond a bound it waits.
func (s *session) shownLocked() int64 {
	if most := s.script.send[sendMaxCredit]; most > 0 {
		return min(s.credit, most)
	}
	return s.credit
}

// write is the writer. It ends with the stream, or when all is written after stop.
func (s *session) write() {
	for {
		it := s.nextItem()
		if it == nil {
			return
		}
		err := s.writeItem(it)
		s.mu.Lock()
		s.wrote = time.Now()
		if err != nil {
			s.endLocked(err)
		}
		it.done = err == nil
		if it.c == nil && !it.half {
			s.waiting = false
		}
		s.changeLocked()
		s.mu.Unlock()
	}
}

// nextItem waits for something to write, and for the flood rule.
func (s *session) nextItem() *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped || s.halved || s.over != nil && !s.server {
			return nil
		}
		if len(s.queue) == 0 {
			s.waitLocked(nil)
			continue
		}
		it := s.queue[0]
		if it.c != nil && it.c.kind != kindOpen && s.fault != Floods && !s.mine.spend() {
			timer := time.NewTimer(time.Second / rate)
			s.waitLocked(timer.C)
			timer.Stop()
			continue
		}
		s.queue = s.queue[1:]
		s.halved = it.half
		return it
	}
}

func (s *session) writeItem(it *item) error {
	switch {
	case it.half:
		s.st.halfClose()
		return nil
	case it.c != nil:
		var setup []byte
		if it.c.kind == kindOpen && !s.server {
			setup = s.script.raw
		}
		return s.st.send(s.encodeControl(it.c, setup))
	}
	e := encodeElement(it.number, make([]byte, it.payload))
	switch {
	case it.more > 0:
		var batch []byte
		for n := range it.more + 1 {
			batch = putBytes(batch, 1, encodeElement(it.number+n, make([]byte, it.payload)))
		}
		e = putBytes(nil, 3, batch)
	case s.framed:
		e = putBytes(nil, 2, e)
	}
	return s.st.send(e)
}

// encodeControl is a message with control, and the setup element if there is one.
func (s *session) encodeControl(c *control, setup []byte) []byte {
	if s.framed {
		if setup == nil {
			return putBytes(nil, 1, c.encode())
		}
		return putBytes(putBytes(nil, 2, setup), 4, c.encode())
	}
	if setup == nil {
		return putBytes(nil, 15, c.encode())
	}
	c.withData = true
	return putBytes(putBytes(nil, 3, setup), 15, c.encode())
}

// flush waits until the queue is written, or nothing more can be.
func (s *session) flush(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.queue) > 0 || s.waiting) && s.over == nil && s.waitLocked(timer.C) {
	}
}

// read is the reader.
func (s *session) read() {
	for {
		b, err := s.st.recv()
		if err == nil {
			err = s.take(b)
		}
		if err != nil {
			s.ended(err)
			return
		}
	}
}

// decode reads a message.
func (s *session) decode(b []byte) (m message, err error) {
	if s.framed {
		m, err = decodeFrame(b)
	} else {
		m, err = decodeEmbedded(b)
	}
	if err != nil {
		err = &statusError{code: internalCode, message: fmt.Sprintf("a message that cannot be decoded: %v", err)}
	}
	return m, err
}

// take acts on a message.
func (s *session) take(b []byte) error {
	m, err := s.decode(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changeLocked()
	s.heard, s.grace = time.Now(), 0
	if m.c != nil {
		if len(m.elements) == 0 && !s.theirs.spend() {
			return violation("CONTROL_FLOOD")
		}
		if err := s.steerLocked(m.c); err != nil {
			return err
		}
	}
	if m.batch && !s.features[featureBatch] {
		return violation("UNEXPECTED_FRAME")
	}
	if len(m.elements) == 0 {
		return nil
	}
	return s.pushLocked(m.elements)
}

func (s *session) steerLocked(c *control) error {
	switch c.kind {
	case kindOpen:
		return violation("UNEXPECTED_FRAME")
	case kindRequest:
		return s.demandLocked(c, false)
	case kindCancel:
		if s.script.send == nil {
			return violation("UNEXPECTED_FRAME")
		}
		if s.outEnd == nil {
			s.outEnd = errCanceled
		}
		s.settleLocked()
	case kindComplete, kindError:
		return s.finishLocked(c)
	case kindDrained:
		return s.drainedLocked(c)
	case kindHeartbeat:
		if c.nextBytes > 0 && s.fault != IgnoresAnnouncements {
			s.grace = time.Duration(c.nextBytes) * time.Second / announceBytes
		}
		if c.echo {
			s.putLocked(s.beatLocked())
		}
	}
	return nil
}

// demandLocked acts on a Request.
func (s *session) demandLocked(c *control, first bool) error {
	most := s.script.send[sendMaxCredit]
	switch {
	case s.script.send == nil || !s.peer.willReceive:
		return violation("UNEXPECTED_FRAME")
	case c.n < 0 || c.n == 0 && c.consumed == 0 && !c.drain:
		return violation("INVALID_DEMAND")
	case c.drain && !s.features[featureDrain]:
		return violation("UNEXPECTED_FRAME")
	case c.consumed > s.sent || c.consumed > 0 && c.consumed < s.told:
		return violation("INVALID_CONSUMED")
	case most > 0 && s.script.send[sendReject] != 0 && c.n > most-s.credit && !(first && s.server) && s.outEnd == nil:
		return violation("DEMAND_TOO_LARGE")
	}
	for ; s.told < c.consumed; s.told++ {
		s.held -= s.sizes[0]
		s.sizes = s.sizes[1:]
	}
	if s.outEnd != nil || s.terminal { // a terminal is an answer to a drain, too
		return nil
	}
	if c.n > 0 {
		s.asked = true
		s.credit += min(c.n, unbounded-s.credit)
	}
	if c.drain {
		burned := s.credit
		s.credit = 0
		s.putLocked(&control{kind: kindDrained, sent: s.sent, burned: burned})
	}
	return nil
}

// finishLocked acts on Complete and Error.
func (s *session) finishLocked(c *control) error {
	switch {
	case s.script.receive == nil:
		return violation("UNEXPECTED_FRAME")
	case s.complete:
		return violation("AFTER_TERMINAL")
	case c.total != uint64(s.received):
		return violation("COUNT_MISMATCH")
	}
	s.complete = true
	if s.inEnd != nil {
		return nil
	}
	switch {
	case c.kind == kindError:
		s.inEnd = &statusError{code: c.code, message: c.message}
	case c.goingAway:
		s.inEnd = errGoingAway
	default:
		s.inEnd = io.EOF
	}
	s.settleLocked()
	return nil
}

func (s *session) drainedLocked(c *control) error {
	switch {
	case s.script.receive == nil:
		return violation("UNEXPECTED_FRAME")
	case s.complete:
		return violation("AFTER_TERMINAL")
	case !s.draining:
		return violation("UNEXPECTED_FRAME")
	case c.sent != uint64(s.received):
		return violation("COUNT_MISMATCH")
	}
	s.burned += s.granted - s.received
	s.granted, s.draining = s.received, false
	return nil
}

// pushLocked takes in elements.
func (s *session) pushLocked(elements []element) error {
	switch {
	case s.script.receive == nil || !s.peer.willSend:
		return violation("UNEXPECTED_FRAME")
	case s.complete:
		return violation("AFTER_TERMINAL")
	case s.granted != unbounded && int64(len(elements)) > s.granted-s.received:
		return violation("CREDIT_EXCEEDED")
	}
	most, window := s.script.receive[receiveMaxMessage], s.script.receive[receiveBytes]
	for _, e := range elements {
		if most > 0 && e.size > most {
			return violation("MESSAGE_TOO_LARGE")
		}
		if window > 0 && s.weight >= window {
			return violation("BYTES_EXCEEDED")
		}
		s.received++
		s.theirs.elements++
		s.mine.elements++
		if s.fault == Expires {
			s.theirs.elements = min(s.theirs.elements, burst)
		}
		if s.quit {
			s.consumed++
			continue
		}
		s.weights = append(s.weights, e.size)
		s.weight += e.size
		s.buffer = append(s.buffer, e)
	}
	return nil
}

// ended acts on the end of what the peer sends.
func (s *session) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, io.EOF) {
		s.endLocked(err)
		return
	}
	if s.server {
		s.deserted = true
		if s.inEnd == nil && s.script.receive != nil {
			s.inEnd, s.complete = io.EOF, true
		}
		s.changeLocked()
		return
	}
	s.st.c.mu.Lock()
	unfinished, doubt := len(s.st.trailer[unfinishedTrailer]) > 0, last(s.st.trailer[consumedTrailer])
	s.st.c.mu.Unlock()
	if unfinished && s.inEnd == nil && s.fault != IgnoresTrailers {
		s.inEnd = violation("COUNT_MISMATCH")
	}
	if s.outEnd == nil && s.terminal {
		s.outEnd = io.EOF
		if s.features[featureConsumed] && doubt != "unsure" && s.told < s.sent && s.fault != TrustsOK {
			s.outEnd = errCanceled
		}
	}
	s.endLocked(io.EOF)
}

// settleLocked half-closes a client's stream once it has nothing more to write.
func (s *session) settleLocked() {
	out := s.script.send == nil || s.terminal || s.outEnd != nil
	reported := !s.features[featureConsumed] || s.reported == s.received
	in := s.script.receive == nil || s.quit || s.complete && len(s.buffer) == 0 && reported
	if s.server || !out || !in || s.over != nil {
		return
	}
	for _, it := range s.queue {
		if it.half {
			return
		}
	}
	if !s.halved {
		s.queue = append(s.queue, &item{half: true})
		s.changeLocked()
	}
}

// watch writes heartbeats, and ends the session when the peer is silent.
func (s *session) watch() {
	limit := time.Duration(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.features[featureHeartbeat] {
		limit = 3 * time.Duration(s.script.heartbeatMs) * time.Millisecond
	}
	if s.fault == BeatsSlowly {
		s.beatEvery *= 2
	}
	for (limit > 0 || s.beatEvery > 0) && s.over == nil && !s.stopped && !s.halved {
		now := time.Now()
		next := now.Add(time.Hour)
		if limit > 0 {
			if end := s.heard.Add(limit + s.grace); !now.Before(end) && s.fault != WaitsForEver {
				s.endLocked(violation("PEER_STALLED"))
				return
			} else if end.Before(next) {
				next = end
			}
		}
		if s.beatEvery > 0 {
			due := s.wrote.Add(s.beatEvery * 3 / 4)
			if !now.Before(due) && len(s.queue) == 0 {
				s.putLocked(s.beatLocked())
				s.wrote = now
				due = now.Add(s.beatEvery * 3 / 4)
			}
			if due.Before(next) {
				next = due
			}
		}
		timer := time.NewTimer(max(time.Millisecond, next.Sub(now)))
		s.waitLocked(timer.C)
		timer.Stop()
	}
}
