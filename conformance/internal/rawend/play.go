package rawend

import (
	"errors"
	"io"
	"sync"
	"time"
)

// send sends an element, and waits until it is written. limit is how long it waits for credit; zero is
// for ever.
func (s *session) send(number, payload int64, limit time.Duration) error {
	size := int64(len(encodeElement(number, make([]byte, payload))))
	giveUp := after(limit)
	stall := after(time.Duration(s.script.send[sendStall]) * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peer.maxMessage > 0 && size > s.peer.maxMessage {
		return errTooLarge
	}
	for s.outEnd == nil && !s.mayLocked() {
		if s.deserted && s.credit == 0 {
			s.outEnd = errCanceled
			break
		}
		if s.waitEither(giveUp, stall) {
			continue
		}
		if stall != nil && limit == 0 {
			s.endLocked(violation("CREDIT_STARVED"))
			break
		}
		return errLate
	}
	if s.outEnd != nil {
		return s.outEnd
	}
	if s.fault == LosesTheLast && s.script.send[sendEnding] == endLeave && number == s.script.send[sendCount] {
		return nil
	}
	it := s.chargeLocked(number, payload, size)
	for !it.done {
		if s.over != nil {
			return s.outEnd
		}
		s.waitLocked(nil)
	}
	return nil
}

// waitEither waits for a change, and returns false where there was none in time.
func (s *session) waitEither(a, b <-chan time.Time) bool {
	if a == nil {
		a = b
	}
	return s.waitLocked(a)
}

// after is a timer; for zero none.
func after(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return time.After(d)
}

// mayLocked reports whether an element may be sent.
func (s *session) mayLocked() bool {
	return s.credit > 0 && !s.waiting && (s.peer.maxBuffered == 0 || s.held < s.peer.maxBuffered) &&
		(s.fault != WantsReports || s.sent < s.told+1_000)
}

// chargeLocked takes credit and queues the element.
func (s *session) chargeLocked(number, payload, size int64) *item {
	if s.beatEvery > 0 && size > announceBytes*int64(s.beatEvery)/int64(time.Second) && s.fault != AnnouncesNothing {
		b := s.beatLocked()
		b.nextBytes = size
		s.queue = append(s.queue, &item{c: b})
	}
	if s.credit != unbounded {
		s.credit--
	}
	s.sent++
	s.mine.elements++
	s.theirs.elements++
	if s.fault == Expires {
		s.theirs.elements = min(s.theirs.elements, burst)
	}
	s.sizes = append(s.sizes, size)
	s.held += size
	s.waiting = true
	it := &item{number: number, payload: payload}
	if s.fault == BatchesTooMuch && s.framed {
		it.more = min(40, s.credit, s.script.send[sendCount]-number)
		s.credit -= it.more
		s.sent += uint64(it.more)
		s.batched = it.more
	}
	s.queue = append(s.queue, it)
	s.changeLocked()
	return it
}

// terminate ends what this end sends with Complete or Error, and waits until that is written.
func (s *session) terminate(c *control) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outEnd != nil {
		return s.outEnd
	}
	c.total = s.sent
	s.terminal = true
	it := &item{c: c}
	s.queue = append(s.queue, it)
	s.settleLocked()
	s.changeLocked()
	for !it.done && s.over == nil {
		s.waitLocked(nil)
	}
	return s.restLocked(c)
}

// restLocked waits for the receiver: until it has consumed everything, or for a client until the end.
func (s *session) restLocked(c *control) error {
	for s.over == nil && s.outEnd == nil {
		if s.server && (!s.features[featureConsumed] || s.told == s.sent || s.deserted) {
			break
		}
		if !s.server && s.script.receive != nil && s.told == s.sent {
			break
		}
		s.waitLocked(nil)
	}
	if s.outEnd == nil || errors.Is(s.outEnd, errCanceled) && s.told == s.sent || c.kind == kindError {
		return nil
	}
	return s.outEnd
}

// recv takes an element, and is done with the one before it, unless the script says to hold it.
func (s *session) recv() (element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buffer) == 0 {
		if s.inEnd != nil {
			return element{}, s.inEnd
		}
		if s.consumed > s.reported && s.features[featureConsumed] {
			timer := time.NewTimer(idleReport)
			if !s.waitLocked(timer.C) {
				s.reportLocked(0)
			}
			timer.Stop()
			continue
		}
		s.waitLocked(nil)
	}
	e := s.buffer[0]
	s.buffer = s.buffer[1:]
	if s.script.receive[receiveHold] == 0 {
		s.consumeLocked()
	}
	return e, nil
}

// consumeLocked is done with an element.
func (s *session) consumeLocked() {
	s.consumed++
	s.weight -= s.weights[0]
	s.unreported += s.weights[0]
	s.weights = s.weights[1:]
	window := s.script.receive[receiveBytes]
	switch n := s.grantLocked(); {
	case n > 0, window > 0 && 2*s.unreported >= window, s.complete && s.consumed == s.received && s.features[featureConsumed]:
		s.reportLocked(n)
	case s.server && s.features[featureConsumed] && s.fault != ReportsLate:
		s.reportLocked(0) // its handler may return now
	}
	s.settleLocked()
	s.changeLocked()
}

// reportLocked queues a Request for n with what is consumed.
func (s *session) reportLocked(n int64) {
	if s.quit || s.over != nil {
		return
	}
	s.reported, s.unreported = s.consumed, 0
	s.putLocked(&control{kind: kindRequest, n: n, consumed: uint64(s.consumed)})
	s.settleLocked()
}

// request adds demand.
func (s *session) request(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed += min(n, unbounded-s.owed)
	if n := s.grantLocked(); n > 0 {
		s.putLocked(&control{kind: kindRequest, n: n})
	}
}

// drain takes back what was asked for.
func (s *session) drain() (burned int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inEnd != nil {
		return 0, s.inEnd
	}
	before := s.burned
	s.draining = true
	s.putLocked(&control{kind: kindRequest, drain: true})
	for s.draining && s.inEnd == nil {
		s.waitLocked(nil)
	}
	if s.draining {
		return 0, s.inEnd
	}
	return s.burned - before, nil
}

// cancelIn asks for no more.
func (s *session) cancelIn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quit {
		return
	}
	queue := s.queue[:0:0]
	for _, it := range s.queue {
		if it.c == nil || it.c.kind != kindRequest {
			queue = append(queue, it)
		}
	}
	s.queue, s.quit, s.buffer = queue, true, nil
	if !s.complete {
		s.inEnd = errCanceled
		s.putLocked(&control{kind: kindCancel})
	}
	s.settleLocked()
	s.changeLocked()
}

// A player does what the script says, as an application.
type player struct {
	*session

	r    report
	rmu  sync.Mutex // guards r and next
	next int64
}

func (p *player) play() {
	p.r.id, p.r.sends, p.r.receives = p.script.id, p.script.send != nil, p.script.receive != nil
	if p.script.lockstep {
		p.r.sending, p.r.receiving = p.lockstep()
	} else {
		var wg sync.WaitGroup
		if p.r.sends {
			wg.Go(func() { p.r.sending = p.sendAll() })
		}
		if p.r.receives {
			wg.Go(func() { p.r.receiving = p.receiveAll() })
		}
		wg.Wait()
	}
	p.pause(p.script.lingerMs)
}

// pause waits for some milliseconds, or until the stream has ended.
func (p *player) pause(milliseconds int64) {
	if milliseconds <= 0 {
		return
	}
	timer := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.st.ctx.Done():
	}
}

func (p *player) sendAll() error {
	errs := make([]error, max(1, p.script.send[sendSenders]))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = p.sendSome() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return p.endSending()
}

func (p *player) sendSome() error {
	for {
		p.rmu.Lock()
		p.next++
		n := p.next
		p.rmu.Unlock()
		if n > p.script.send[sendCount] {
			return nil
		}
		p.pause(p.script.send[sendPace])
		if err := p.sendOne(n); err != nil {
			return err
		}
		p.rmu.Lock()
		p.next += p.batched // by the one sender that there is then
		p.rmu.Unlock()
	}
}

func (p *player) sendOne(n int64) error {
	if n == p.script.send[sendOversizeBefore] {
		if err := p.send(n, p.script.send[sendOversizeBytes], 0); !errors.Is(err, errTooLarge) {
			return err
		}
		p.count(&p.r.tooLarge)
	}
	for {
		err := p.send(n, p.script.send[sendPayload], time.Duration(p.script.send[sendGiveUp])*time.Millisecond)
		switch {
		case err == nil:
			p.count(&p.r.sent)
			return nil
		case !errors.Is(err, errLate):
			return err
		}
		p.count(&p.r.givenUp)
	}
}

func (p *player) count(n *int64) {
	p.rmu.Lock()
	*n++
	p.rmu.Unlock()
}

func (p *player) endSending() error {
	switch p.script.send[sendEnding] {
	case endError:
		return p.terminate(&control{kind: kindError, code: int(p.script.send[sendCode]), message: p.script.message})
	case endGoingAway:
		return p.terminate(&control{kind: kindComplete, goingAway: true})
	case endNothing:
		p.mu.Lock()
		defer p.mu.Unlock()
		for p.outEnd == nil {
			if p.deserted && p.credit == 0 {
				p.outEnd = errCanceled
				break
			}
			p.waitLocked(nil)
		}
		return p.outEnd
	case endLeave:
		return nil
	}
	return p.terminate(&control{kind: kindComplete})
}

func (p *player) receiveAll() error {
	if rounds := p.script.receive[receiveRounds]; rounds > 0 {
		return p.rounds(rounds)
	}
	p.ask()
	for {
		n := p.r.received
		switch {
		case p.script.at(receiveLeaveAfter, n):
			return nil
		case p.script.at(receiveCancelAfter, n):
			p.cancelIn()
			return errCanceled
		case p.script.at(receiveTake, n):
			<-p.st.ctx.Done()
		case p.script.at(receiveDrainAfter, n):
			burned, _ := p.drain() // where the end was the answer, recv says so
			p.r.burned += burned
		}
		p.pause(p.script.receive[receivePace])
		if err := p.receiveOne(); err != nil {
			return err
		}
	}
}

func (p *player) ask() {
	for _, n := range p.script.requests {
		p.request(n)
	}
}

func (p *player) rounds(rounds int64) error {
	for range rounds {
		p.ask()
		for range p.script.receive[receiveDrainAfter] {
			if err := p.receiveOne(); err != nil {
				return err
			}
		}
		burned, err := p.drain()
		if err != nil {
			return err
		}
		p.r.burned += burned
	}
	p.cancelIn()
	return errCanceled
}

func (p *player) receiveOne() error {
	e, err := p.recv()
	if err != nil {
		return err
	}
	p.r.received++
	if e.number != p.r.received && p.r.outOfOrder == 0 {
		p.r.outOfOrder = e.number
	}
	return nil
}

func (p *player) lockstep() (sending, receiving error) {
	for n := int64(1); n <= p.script.send[sendCount]; n++ {
		if err := p.sendOne(n); err != nil {
			return err, err
		}
		if err := p.receiveOne(); err != nil {
			return err, err
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { sending = p.terminate(&control{kind: kindComplete}) })
	for receiving == nil {
		receiving = p.receiveOne()
	}
	wg.Wait()
	if errors.Is(receiving, io.EOF) {
		receiving = nil
	}
	return sending, receiving
}
