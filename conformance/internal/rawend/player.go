package rawend

import (
	"errors"
	"io"
	"sync"
	"time"
)

// A player plays the script as an application does.
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
		p.next += p.batched // with batches there is only one sender
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
			burned, _ := p.drain() // if the stream ended instead, recv returns why
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
