package streamcredit

import (
	"errors"
	"io"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// writeElement writes e and releases the lock. It then writes control that has become pending
// meanwhile.
func (w *writer[O]) writeElement(e O) (sent bool, err error) {
	sent, err = w.writeElementAndUnlock(e)
	w.writePending()
	return sent, err
}

func (w *writer[O]) writeElementAndUnlock(e O) (sent bool, err error) {
	returned := false
	defer w.release(&returned)
	sent, err = w.writeElementLocked(e)
	returned = true
	return sent, err
}

// writeElementLocked writes pending control and then e, if there is credit for it. A pending
// Request rides on e.
func (w *writer[O]) writeElementLocked(e O) (sent bool, err error) {
	var ride *creditpb.Control
	if w.pending.waits.Load() && w.state != writerHalfClosed && w.bucket.fill(w.host.elements) {
		if ride, err = w.writeAllButRequestLocked(); err != nil {
			return false, w.host.reasonFor(err)
		}
	}
	size, sent, err := w.out.take(func() int { return w.wire.sizeOut(e) })
	if !sent {
		if ride != nil {
			_ = w.writeControlLocked(ride) // if it fails, the read loop learns why
		}
		return false, err
	}
	w.announceLocked(size)
	if err := w.wire.writeElement(e, ride); err != nil {
		return false, w.notWritten(err, ride, size)
	}
	w.out.wrote()
	w.noteWrite()
	if ride != nil {
		w.controls.Add(1)
	}
	if w.metered {
		w.elements.Add(1)
		w.bytes.Add(size)
	}
	return true, nil
}

// writeAllButRequestLocked writes pending control up to a Request. It returns the Request, which
// can ride on an element.
func (w *writer[O]) writeAllButRequestLocked() (*creditpb.Control, error) {
	for {
		c, half := w.pending.take(w.out)
		switch {
		case half: // nothing more may be written, and writePending half-closes
			w.pending.halfClose()
			return nil, nil //nolint:nilnil // no control and no error
		case c == nil || w.state == writerUnaware:
			return nil, nil //nolint:nilnil // likewise
		case c.GetRequest() != nil:
			return c, nil
		}
		if err := w.writeControlLocked(c); err != nil {
			return nil, err
		}
	}
}

// notWritten undoes writeElementLocked for an element that could not be written. The stream may
// go on if it has not ended. Then an interceptor has refused the element or gRPC could not encode
// it, and nothing was written.
func (w *writer[O]) notWritten(err error, ride *creditpb.Control, size int64) error {
	w.out.restore(size)
	if w.ctx.Err() != nil || errors.Is(err, io.EOF) {
		return w.host.reasonFor(err)
	}
	if ride != nil {
		r := ride.GetRequest()
		w.pending.ask(r.GetN(), r.GetConsumed(), r.GetDrain())
	}
	return err
}

// noteWrite records that a message is written now.
func (w *writer[O]) noteWrite() {
	w.messages.Add(1)
	if w.lastAt.Load() != 0 {
		w.lastAt.Store(w.age())
	}
}

// age returns how long the writer has existed. It is never 0.
func (w *writer[O]) age() int64 { return int64(time.Since(w.began)) }

// beat returns a Heartbeat with the state of the outgoing direction.
func (w *writer[O]) beat() *creditpb.Heartbeat {
	if w.out == nil {
		return &creditpb.Heartbeat{}
	}
	return w.out.beat()
}

// announceLocked announces a large element to a peer that expects heartbeats, since no heartbeat
// can overtake it.
func (w *writer[O]) announceLocked(size int64) {
	if large := w.large.Load(); large == 0 || size <= large {
		return
	}
	b := w.beat()
	b.Sent, b.Credit = b.GetSent()-1, saturate(b.GetCredit(), 1) // the element is counted already, and comes after this
	b.NextBytes = size
	_ = w.writeControlLocked(&creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: b}}) // if it fails, so does the element
}
